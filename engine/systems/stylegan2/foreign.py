"""Finds StyleGAN2 networks among the tensors of a foreign file, and says which of them ours cannot compute."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...checkpoint.foreign.content import Content, Value
from ...files.hostile import shown
from .layouts import FILTER, LAYOUTS, Layout, Row, low_pass

__all__ = ["MOST_BLOCKS", "Found", "find_critic", "find_generator", "listed", "misfit", "relative", "variant"]

MOST_BLOCKS = 9
_AVERAGED = ("g_ema", "G_ema", "generator_smooth", "Gs")  # networks of averaged weights, the best first
_LISTED, _LONGEST = 20, 200  # keys of each fault, and characters of a name
_IDLE = {"lod"}  # TensorFlow's networks keep it from progressive growing, and nothing reads it
_SCOPE = re.compile(r"(^|\.)G_(?=(mapping|synthesis)/)")  # in TensorFlow's full names
_CONDITION = re.compile(r"mapping[./](embed|label)", re.IGNORECASE)
_SKIP = re.compile(r"\.skip\.weight$|/Skip/weight$")
_STYLEGAN1 = r"/StyleMod/|synthesis\.layer0\.const$|noiseMod00\.module\.weight$|progression\.\d+\.adain"
_RELATIVES = (
    (re.compile(r"synthesis\.input\.freqs$"), "a StyleGAN3"),
    (re.compile(_STYLEGAN1), "a StyleGAN1"),
    (re.compile(r"synthesis/.*ToRGB_lod\d"), "a StyleGAN2 of the configurations a to d, which grow progressively"),
)


@dataclass(frozen=True)
class Found:
    """A network in a foreign file.

    Attributes:
        layout: whose names its tensors have.
        name: in the file; "plain" if the file holds nothing else.
        state: its tensors by their keys in the layout.
        values: the plain values of its modules, by the last part of their names.
    """

    layout: Layout
    name: str
    state: Mapping[str, Tensor]
    values: Mapping[str, list[Value]]


def relative(content: Content) -> str:
    """The name of a relative of StyleGAN2 that the file holds; empty if there is none."""
    for pattern, name in _RELATIVES:
        if any(pattern.search(key) for key in content.tensors):
            return name
    return ""


def find_generator(content: Content) -> Found | None:
    """The generator of averaged weights, else the first one; None if no layout has its names."""
    places = [(layout, prefix) for layout in LAYOUTS for prefix in _prefixes(content, layout.mark)]
    if not places:
        return None

    def rank(place: tuple[Layout, str]) -> int:
        parts = place[1].split(".")
        return next((number for number, name in enumerate(_AVERAGED) if name in parts), len(_AVERAGED))

    layout, prefix = min(places, key=rank)
    found = _network(content, layout, prefix)
    mean = content.tensors.get("latent_avg")  # beside the network; pSp repeats it for each layer
    if layout.mean_beside and mean is not None:
        repeated = mean.ndim == 2 and mean.is_floating_point() and len(mean) > 0
        mean = mean.double().mean(0).float() if repeated else mean
        return Found(layout, found.name, {**found.state, "latent_avg": mean}, found.values)
    return found


def find_critic(content: Content, layout: Layout) -> Found | None:
    """The discriminator of a layout beside its generator; None if there is none."""
    prefixes = [prefix for prefix in _prefixes(content, layout.critic_mark) if prefix]
    return _network(content, layout, prefixes[0]) if prefixes else None


def variant(found: Found) -> str:
    """The end of a sentence about a generator that ours cannot compute; empty if the keys and values tell nothing."""
    rows = {row.name: row for row in found.layout.generator(1, 1)}
    const, first = (found.state.get(rows[name].key) for name in ("const", "mapping.0.weight"))
    if const is not None and const.shape[-2:] != (4, 4):
        return f"begins with a map of {list(const.shape)} in place of 4x4, so its images are not square"
    classes = any(isinstance(count, int) and count > 0 for count in found.values.get("c_dim", ()))
    if first is not None and first.ndim == 2 and found.layout.labels_by_shape:
        outputs, inputs = rows["mapping.0.weight"].form.ours(first).shape
        classes = classes or inputs == 2 * outputs
    if classes or any(_CONDITION.search(key) for key in found.state):
        return "is conditional: it takes labels beside latents, which this version does not"
    if kinds := _architectures(found) - {"skip"}:
        return f"has the architecture {shown(min(kinds))}; generators of the architecture 'skip' are converted"
    if odd := (_texts(found, "activation") | _texts(found, "nonlinearity")) - {"lrelu", "linear"}:
        return f"has the activation {shown(min(odd))}; generators with 'lrelu' are converted"
    if len(set(found.values.get("conv_clamp", ()))) > 1:
        return "clamps its layers at different bounds, and ours has one bound"
    return ""


def misfit(rows: Iterable[Row], found: Found, network: nn.Module) -> str:
    """The keys by which a state dict does not fit a network on the meta device; empty if it fits.

    Constant noise, the mean of style vectors and filters may be missing.
    """
    kept, state = {**network.state_dict(), FILTER: torch.empty(4, 4, device="meta")}, found.state
    by_key = {row.key: row for row in rows}
    shapes = {key: list(row.form.theirs(kept[row.name]).shape) for key, row in by_key.items()}
    optional = {row.key for row in by_key.values() if row.name in (FILTER, "w_avg") or row.name.endswith(".noise")}
    common = [key for key in shapes if key in state]
    other = [key for key in common if list(state[key].shape) != shapes[key] or not state[key].is_floating_point()]
    parts = (
        listed("missing", [key for key in shapes if key not in state and key not in optional]),
        listed("unexpected", [key for key in state if key not in shapes]),
        listed("of another shape", [f"{key} {_shown(state[key])} in place of {shapes[key]}" for key in other]),
    )
    if any(parts):
        return "; ".join(part for part in parts if part)
    filters = {key: by_key[key].form.ours(state[key]) for key in common if by_key[key].name == FILTER}
    odd = [key for key, taps in filters.items() if not torch.allclose(taps.float(), low_pass(), atol=1e-4)]
    return listed("filters other than [1, 3, 3, 1]", odd)


def listed(what: str, keys: list[str]) -> str:
    """A fault and its keys, of which the first are written out; empty if there are none."""
    if not keys:
        return ""
    more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return f"{what} {', '.join(key[:_LONGEST] for key in keys[:_LISTED])}{more}"


def _shown(tensor: Tensor) -> str:
    """A tensor's shape, and its dtype if that is the fault."""
    return f"{list(tensor.shape)}{'' if tensor.is_floating_point() else f' of {tensor.dtype}'}"


def _architectures(found: Found) -> set[str]:
    """The architectures that values and keys tell: 'resnet' has skips, 'orig' has colours in the last block alone."""
    if any(_SKIP.search(key) for key in found.state):
        return {"resnet"}
    colours = [row.key for row in found.layout.generator(MOST_BLOCKS, 1) if row.name.endswith(".rgb.bias")]
    coloured = [key in found.state for key in colours]
    return {"orig"} if sum(coloured) == 1 and not coloured[0] else _texts(found, "architecture")


def _texts(found: Found, name: str) -> set[str]:
    return {value for value in found.values.get(name, ()) if isinstance(value, str)}


def _prefixes(content: Content, mark: str) -> list[str]:
    names = (_SCOPE.sub(r"\1", name) for name in content.tensors)
    ends = [name.removesuffix(mark) for name in names if name.endswith(mark)]
    return [prefix for prefix in ends if not prefix or prefix.endswith(".")]


def _network(content: Content, layout: Layout, prefix: str) -> Found:
    state, values = {}, dict[str, list[Any]]()
    for name, tensor in content.tensors.items():
        key = _SCOPE.sub(r"\1", name)
        if key.startswith(prefix) and key.removeprefix(prefix) not in _IDLE:
            state[key.removeprefix(prefix)] = tensor
    for name, value in content.values.items():
        if name.startswith(prefix):
            values.setdefault(name.rpartition(".")[2], []).append(value)
    return Found(layout, prefix.rstrip(".")[:_LONGEST] or "plain", state, values)
