"""Which rewrites a network runs with: each layer's forms measured here once, the fastest kept, the choice on disk.

A choice is stored under everything that decides it: shape, padding and dtype of the layer's weights, the shapes it was
given, the device, the number of threads, and the versions of torch and of this package. Forms differ in their last
bits, so a choice also decides a picture's last bits. Therefore it is made once for each layer, for all batches, and a
second process adopts the choice of the first one.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from zellige.version import __version__

from ..device import processor
from ..layers.ambient import own_modes
from .fold_norm import fold_norms
from .forms import forms
from .plan_cache import Times, keep, read

__all__ = ["AS_TRAINED", "Choice", "apply", "plan", "rewritten"]

logger = logging.getLogger(__name__)

AS_TRAINED = "as trained"
_MARGIN = 1.03  # a rewrite must win by this much, or noise would decide
_ROUNDS, _FEWEST_ROUNDS, _SECONDS = 7, 3, 0.2  # measurements of a form: so many, or fewer where they take so long
_SHORTEST = 1e-4  # milliseconds, the last digit that is kept


@dataclass(frozen=True)
class Choice:
    """The form of one layer.

    Attributes:
        layer: its path in the network.
        kind: class of the trained layer.
        shapes: of its inputs, such as "1x64x128x128".
        dtype: of its weights.
        milliseconds: of every form that runs here, the least of the rounds.
        form: the one that is used.
        cached: whether it was read and not measured.
    """

    layer: str
    kind: str
    shapes: str
    dtype: str
    milliseconds: dict[str, float]
    form: str
    cached: bool = field(default=False, compare=False)

    @property
    def gain(self) -> float:
        """Time of the trained layer over that of the form."""
        return self.milliseconds[AS_TRAINED] / self.milliseconds[self.form]

    def row(self) -> dict[str, Any]:
        """For reports."""
        return asdict(self) | {"gain": self.gain}


@own_modes()
@torch.inference_mode()
def plan(network: nn.Module, run: Callable[[], Any]) -> list[Choice]:
    """Choose a form for every layer that has several, and change nothing.

    Args:
        network: trained, in evaluation, on the device and in the precision that it will run in.
        run: calls it on inputs like those to come; each layer is measured with the inputs that it gets then.
    Returns:
        One choice a layer that was run, in the order of the network.
    """
    layers = {path: layer for path, layer in network.named_modules() if forms(layer)}
    given = _given(layers, run)
    keys = {path: _key(layer, given[path]) for path, layer in layers.items() if path in given}
    names = {key: {AS_TRAINED, *forms(layers[path])} for path, key in keys.items()}
    known = {key: times for key, times in read().items() if times.keys() == names.get(key)}
    fresh = dict[str, Times]()
    for path, key in keys.items():
        if key not in known and key not in fresh:
            if not fresh:
                logger.info("measuring which rewrites are faster here, once")
            fresh[key] = _measured(path, layers[path], given[path])
    # Without a form that failed they are not kept: the cause may have been a want of memory.
    known |= fresh | keep({key: times for key, times in fresh.items() if times.keys() == names[key]})
    found = []
    for path, key in keys.items():
        layer, times = layers[path], known[key]
        best = min(times, key=lambda name: times[name] * (1 if name == AS_TRAINED else _MARGIN))
        shapes = ", ".join("x".join(map(str, tensor.shape)) for tensor in given[path])
        dtype = str(layer.weight.dtype).removeprefix("torch.")
        found.append(Choice(path, type(layer).__name__, shapes, dtype, times, best, cached=key not in fresh))
    return found


def rewritten(network: nn.Module, run: Callable[[], Any]) -> list[Choice]:
    """Fold norms, plan and apply; arguments as of `plan`, of which the network is changed."""
    fold_norms(network)
    choices = plan(network, run)
    apply(network, choices)
    return choices


@own_modes()
def apply(network: nn.Module, choices: Sequence[Choice]) -> None:
    """Put the chosen forms in the place of the layers."""
    for choice in choices:
        if choice.form != AS_TRAINED:
            parent, _, name = choice.layer.rpartition(".")
            owner = network.get_submodule(parent)
            setattr(owner, name, forms(getattr(owner, name))[choice.form]())


def _given(layers: dict[str, nn.Module], run: Callable[[], Any]) -> dict[str, tuple[Tensor, ...]]:
    """What each layer gets when it is first called."""
    given: dict[str, tuple[Tensor, ...]] = {}

    def note(path: str, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        given.setdefault(path, inputs)

    hooks = [layer.register_forward_pre_hook(partial(note, path)) for path, layer in layers.items()]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return given


def _measured(path: str, layer: nn.Module, inputs: tuple[Tensor, ...]) -> Times:
    """Milliseconds of every form, measured in turns; the least, as all that disturbs makes a time longer.

    A form that cannot be built, or cannot run on these inputs, is left out.
    """
    layer(*inputs)
    built: dict[str, nn.Module] = {AS_TRAINED: layer}
    for name, build in forms(layer).items():
        try:
            form = build()
            form(*inputs)
        except Exception as error:  # whatever it is, the layer runs as it was trained
            logger.warning("%s does not run in the form %r, which is left out: %s", path, name, error)
        else:
            built[name] = form
    times = dict.fromkeys(built, float("inf"))
    began = time.perf_counter()
    for turn in range(_ROUNDS):
        for name, form in built.items():
            times[name] = min(times[name], _milliseconds(form, inputs))
        if turn + 1 >= _FEWEST_ROUNDS and time.perf_counter() - began > _SECONDS:
            break
    return {name: max(round(value, 4), _SHORTEST) for name, value in times.items()}


def _milliseconds(form: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    if inputs[0].device.type == "cuda":
        with torch.cuda.device(inputs[0].device):  # events are of the current device
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            form(*inputs)
            end.record()
            end.synchronize()
            return float(start.elapsed_time(end))
    began = time.perf_counter()
    form(*inputs)
    return (time.perf_counter() - began) * 1e3


def _key(layer: nn.Module, inputs: tuple[Tensor, ...]) -> str:
    """Everything that a choice depends on, as text that people can read in the file."""
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    parts: list[Any] = [type(layer).__name__, "x".join(map(str, layer.weight.shape)), layer.weight.dtype]
    mode = "replicate" if getattr(layer, "replicate", False) else layer.padding_mode
    parts += [layer.padding, mode, getattr(layer, "spare", 0), layer.bias is not None]
    parts += [f"{'x'.join(map(str, t.shape))} {t.dtype} {t.stride()[1] == 1}" for t in inputs]
    return "|".join(map(str, [*parts, *_machine(str(inputs[0].device)), torch.get_num_threads()]))


@cache
def _machine(device: str) -> tuple[str, ...]:
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else processor()
    return name, torch.__version__, __version__
