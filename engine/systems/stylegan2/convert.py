"""Turns the StyleGAN2 weights of other programs into ours; shapes decide, and names of configurations never."""

from collections.abc import Iterable
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from ...checkpoint import faults
from ...checkpoint.foreign.content import Content
from ...files.hostile import shown
from ...layers.ambient import own_modes
from ..conversion import Converted
from . import layouts
from .config import StyleGan2Config
from .discriminator import Discriminator
from .foreign import MOST_BLOCKS, Found, find_critic, find_generator, listed, misfit, relative, variant
from .generator import Generator
from .layouts import Row
from .model import CRITIC, PREFIX

__all__ = ["LAYOUTS", "convert", "mean_style"]

LAYOUTS = tuple(layout.name for layout in layouts.LAYOUTS)
_MOST_LAYERS = 32  # of a mapping network
_ROWS = 4096  # latents at a time


@own_modes()
@torch.no_grad()
def convert(content: Content, seed: int, samples: int) -> Converted | None:
    """Turn foreign weights into a StyleGAN2.

    Of several generators, that of averaged weights is taken. A discriminator of the same widths comes with it.

    Args:
        content: the foreign file.
        seed: of constant noise, and of the latents for the mean style vector, if the file lacks them.
        samples: latents for that mean.
    Returns:
        the model, or None if the tensors are of no layout that is known here.
    Raises:
        UnconvertibleError: the file holds a relative of StyleGAN2, or a variant that ours cannot compute.
        ForeignKeysError: tensors are missing, unexpected or of another shape; the message lists their keys.
    """
    if name := relative(content):
        raise faults.UnconvertibleError(f"{content.path} holds {name}; only weights of StyleGAN2 are converted.")
    found = find_generator(content)
    if found is None:
        return None
    if reason := variant(found):
        raise faults.UnconvertibleError(f"{content.path}: its network {shown(found.name)} {reason}.")
    config = _config(content, found)
    with torch.device("meta"):
        generator, critic = Generator(config), Discriminator(config)
    rows = list(found.layout.generator(len(config.channels), config.mapping_layers))
    if fault := misfit(rows, found, generator):
        raise faults.ForeignKeysError(f"{content.path}: {_unfit(found)}: {fault}.")
    state = _ours(rows, found)
    made = _complete(generator, state, seed, samples)
    tensors = {PREFIX + name: tensor for name, tensor in state.items()}
    more, said = _critic(content, found, critic)
    tensors |= {CRITIC + name: tensor for name, tensor in more.items()}
    source = {"layout": found.layout.name, "network": found.name, **made, "discriminator": said}
    return Converted(tensors, config, source)


@torch.no_grad()
def mean_style(generator: Generator, seed: int, samples: int) -> Tensor:
    """The mean [w_dim] of the style vectors of seeded latents, float32; it is summed in float64."""
    random = torch.Generator().manual_seed(seed)
    total = torch.zeros(generator.config.w_dim, dtype=torch.float64)
    for start in range(0, samples, _ROWS):
        z = torch.randn(min(_ROWS, samples - start), generator.config.z_dim, generator=random)
        total += generator.map(z).double().sum(0)
    return (total / samples).float()


def _config(content: Content, found: Found) -> StyleGan2Config:
    """The configuration that shapes tell, and the plain values of NVIDIA's modules.

    Channels are read off biases, because every layout keeps these as [C].
    """
    state, values = found.state, found.values
    keys = {row.name: row.key for row in found.layout.generator(MOST_BLOCKS, _MOST_LAYERS)}
    sides = [4 << level for level in range(MOST_BLOCKS)]
    blocks = 1 + max((n for n, side in enumerate(sides) if keys[f"b{side}.conv.weight"] in state), default=0)
    layers = 1 + max((n for n in range(_MOST_LAYERS) if keys[f"mapping.{n}.weight"] in state), default=0)
    biases = [keys[f"b{side}.conv.bias"] for side in sides[:blocks]]
    first, last = keys["mapping.0.weight"], keys[f"mapping.{layers - 1}.bias"]
    if absent := [key for key in (first, last, *biases) if key not in state]:
        raise faults.ForeignKeysError(f"{content.path}: {_unfit(found)}: {listed('missing', absent)}.")
    w_dim = state[last].numel()
    rates = [rate for name in ("bias_gain", "mapping_lrmul") for rate in values.get(name, ()) if rate != 1]
    read: dict[str, Any] = {
        "channels": [state[key].numel() for key in biases],
        "z_dim": state[first].numel() // max(1, w_dim),
        "w_dim": w_dim,
        "mapping_layers": layers,
        "mapping_rate": rates[0] if rates else 0.01,  # the gain of biases is 1 in all layers but the mapping's
        "clamp": next(iter(values.get("conv_clamp", ())), None),
        "raw_epsilon": found.layout.raw_epsilon,
    }
    try:
        return StyleGan2Config.model_validate(read)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        key = ".".join(map(str, fault["loc"])) or "shapes"
        raise faults.UnconvertibleError(f"{content.path}: {_unfit(found)}: {key}: {fault['msg']}.") from None


def _unfit(found: Found) -> str:
    return f"its network {shown(found.name)} has the names of {found.layout.name}'s StyleGAN2 and does not fit"


def _ours(rows: Iterable[Row], found: Found) -> dict[str, Tensor]:
    """Our network's tensors in float32, as far as the state dict has them."""
    return {name: tensor.float().contiguous() for name, tensor in layouts.ours(rows, found.state).items()}


def _complete(generator: Generator, state: dict[str, Tensor], seed: int, samples: int) -> dict[str, str]:
    """Make the noise and the mean that a state dict lacks; for each a text that says whether it was made."""
    random = torch.Generator().manual_seed(seed)
    maps = {name: tensor for name, tensor in generator.state_dict().items() if name.endswith(".noise")}
    absent = [name for name in maps if name not in state]
    for name in absent:
        state[name] = torch.randn(maps[name].shape, generator=random)
    said = {"noise": f"{len(absent)} of {len(maps)} maps made from seed {seed}" if absent else "stored"}
    if "w_avg" in state:
        return said | {"w_avg": "stored"}
    generator.load_state_dict({**state, "w_avg": torch.zeros(generator.config.w_dim)}, assign=True)
    state["w_avg"] = mean_style(generator, seed, samples)
    return said | {"w_avg": f"estimated from {samples} latents of seed {seed}"}


def _critic(content: Content, found: Found, critic: Discriminator) -> tuple[dict[str, Tensor], str]:
    """The discriminator's tensors, and its name in the file or the reason why it is left out."""
    own = find_critic(content, found.layout)
    if own is None:
        return {}, "none in the file"
    rows = list(found.layout.critic(len(critic.config.channels)))
    if fault := misfit(rows, own, critic):
        return {}, f"left out, because {own.name} does not fit: {fault}"
    return _ours(rows, own), own.name
