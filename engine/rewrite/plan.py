"""Chooses the form of each layer: the forms are timed here once, the fastest is chosen, and the times stay on disk.

The times are stored under everything that they depend on: shape, padding and dtype of the layer's weights, shapes of
its inputs, the device, the number of threads, and the versions of torch and of this package. Forms differ in their last
bits, so a choice also decides a picture's last bits. Therefore each layer has one choice for all batches, and a second
process adopts the choice of the first one.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from zellige.errors import ConfigError
from zellige.version import __version__

from ..device import processor
from ..files.hostile import shown
from ..layers.ambient import own_modes
from .fold_norm import fold_norms
from .forms import forms
from .plan_cache import Times, keep, read
from .winograd import take_in_activations

__all__ = ["AS_TRAINED", "Choice", "apply", "fold", "plan", "rewritten", "rewritten_as"]

logger = logging.getLogger(__name__)

AS_TRAINED = "as trained"
_MARGIN = 1.03  # a rewrite must win by this much, or noise would decide
_ROUNDS, _FEWEST_ROUNDS, _SECONDS = 7, 3, 0.2  # timings of each form; fewer, but at least 3, once 0.2 s are over
_SHORTEST = 1e-4  # milliseconds; times are rounded to this digit


@dataclass(frozen=True)
class Choice:
    """The choice of forms for one layer.

    Attributes:
        layer: the layer's path in the network.
        kind: the class of the trained layer.
        shapes: the shapes of its inputs, such as "1x64x128x128".
        dtype: the dtype of its weights.
        milliseconds: the shortest time of every form that runs here.
        form: the form that was chosen.
        cached: whether the times were read from disk instead of measured.
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
        """The trained layer's time divided by the chosen form's time."""
        return self.milliseconds[AS_TRAINED] / self.milliseconds[self.form]

    def row(self) -> dict[str, Any]:
        """The choice as a dictionary for reports."""
        return asdict(self) | {"gain": self.gain}


@own_modes()
@torch.inference_mode()
def plan(network: nn.Module, run: Callable[[], Any]) -> list[Choice]:
    """Choose a form for every layer that has several; the network is not changed.

    Args:
        network: a trained network, in evaluation, on the device and in the precision that it will run in.
        run: calls the network on typical inputs; each layer is timed with the inputs that reach it in this call.
    Returns:
        One choice for each layer that ran, in the order of the network.
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
    # Times are not kept if a form failed, because it may have failed only for lack of memory.
    known |= fresh | keep({key: times for key, times in fresh.items() if times.keys() == names[key]})
    found = []
    for path, key in keys.items():
        layer, times = layers[path], known[key]
        best = min(times, key=lambda name: times[name] * (1 if name == AS_TRAINED else _MARGIN))
        shapes = ", ".join("x".join(map(str, tensor.shape)) for tensor in given[path])
        dtype = str(layer.weight.dtype).removeprefix("torch.")
        found.append(Choice(path, type(layer).__name__, shapes, dtype, times, best, cached=key not in fresh))
    return found


def fold(network: nn.Module) -> None:
    """Fold norms, and let networks join the layers that they have a method `join_layers` for."""
    fold_norms(network)
    for part in list(network.modules()):
        join = getattr(part, "join_layers", None)
        if join is not None:
            join()


def rewritten(network: nn.Module, run: Callable[[], Any]) -> list[Choice]:
    """Fold norms, choose forms and put them in the network; arguments and result are those of `plan`."""
    fold(network)
    choices = plan(network, run)
    apply(network, choices)
    return choices


def rewritten_as(network: nn.Module, chosen: Mapping[str, str]) -> None:
    """Fold norms and put forms in the network that another process has chosen, so that its results have the same bits.

    Args:
        network: the network, changed in place.
        chosen: the path of each layer to its form.
    Raises:
        ConfigError: the network has no such layer, or the layer no such form.
    """
    fold(network)
    layers = dict(network.named_modules())
    for path, form in chosen.items():
        if path not in layers or form not in {AS_TRAINED, *forms(layers[path])}:
            raise ConfigError(f"the layer {shown(path)} has no form {shown(form)}")
    _put(network, chosen)


def apply(network: nn.Module, choices: Sequence[Choice]) -> None:
    """Replace layers with their chosen forms."""
    _put(network, {choice.layer: choice.form for choice in choices})


@own_modes()
def _put(network: nn.Module, chosen: Mapping[str, str]) -> None:
    for path, form in chosen.items():
        if form != AS_TRAINED:
            parent, _, name = path.rpartition(".")
            owner = network.get_submodule(parent)
            setattr(owner, name, forms(getattr(owner, name))[form]())
    take_in_activations(network)


def _given(layers: dict[str, nn.Module], run: Callable[[], Any]) -> dict[str, tuple[Tensor, ...]]:
    """The inputs of each layer in its first call."""
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
    """The shortest time of every form in milliseconds, because every disturbance makes a time longer.

    The forms take turns. A form that cannot be built, or cannot run on these inputs, is left out.
    """
    layer(*inputs)
    built: dict[str, nn.Module] = {AS_TRAINED: layer}
    for name, build in forms(layer).items():
        try:
            form = build()
            form(*inputs)
        except Exception as error:  # any failure: the layer then runs as it was trained
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
        with torch.cuda.device(inputs[0].device):  # events belong to the current device
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
    """Everything that a choice depends on, as text that people can read in the cache file."""
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
