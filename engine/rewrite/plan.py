"""Which rewrites a network runs with: each layer's forms measured here once, the fastest kept, the choice on disk.

A choice belongs to what decides it: the layer's weights' shape, padding and dtype, the shapes it was given, the device,
the number of threads and the versions of torch and of this package. Forms differ in their last bits, so a choice also
decides a picture's last bits; therefore it is made once for each layer, for all batches, and a second process adopts
what the first one wrote.
"""

import json
import logging
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...kernels.winograd_conv.op import native_dtypes
from ..models.convolutions import CodedConv, PaddedConv, UpConv
from .constant_channels import constant_channels
from .convolution import plain
from .up_conv import up_conv
from .winograd import winograd

__all__ = ["Choice", "apply", "cache_file", "forms", "plan", "rewritten"]

logger = logging.getLogger(__name__)

AS_TRAINED = "as trained"
_MARGIN = 1.03  # a rewrite must win by this much, or noise would decide
_FEWEST_OUTPUTS = 16  # winograd makes 32 at a time
_ROUNDS, _FEWEST_ROUNDS, _SECONDS = 7, 3, 0.2  # measurements of a form: so many, or fewer where they take so long

Form = Callable[[], nn.Module]


@dataclass(frozen=True)
class Choice:
    """The form of one layer.

    Attributes:
        layer: its path in the network.
        kind: class of the trained layer.
        shapes: of what it was given, such as "1x64x128x128".
        dtype: of its weights.
        milliseconds: of every form, the least of the rounds.
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


def forms(layer: nn.Module) -> dict[str, Form]:
    """The rewrites that a layer has on its device, by name, each as what builds it; none for layers without any."""
    if not isinstance(layer, nn.Conv2d) or layer.kernel_size != (3, 3) or layer.stride != (1, 1) or layer.groups != 1:
        return {}
    conv, found, on_cpu = partial(plain, layer), dict[str, Form](), layer.weight.device.type == "cpu"
    tiles = on_cpu and layer.weight.dtype in native_dtypes() and layer.out_channels >= _FEWEST_OUTPUTS
    if isinstance(layer, UpConv):
        if layer.mode != "nearest":
            return {}
        if not layer.spare:
            found["phases"] = lambda: up_conv(conv(), "phases")
        if not (layer.spare or on_cpu):  # oneDNN's rounds some images by the batch that they come in
            found["transposed"] = lambda: up_conv(conv(), "transposed")
        if tiles:
            found["winograd"] = lambda: winograd(conv(), upsample=True, spare=layer.spare)
    elif isinstance(layer, CodedConv):
        found["constant channels"] = lambda: constant_channels(conv(), layer.code)
        if tiles:
            found["constant channels, winograd"] = lambda: winograd(conv(), code=layer.code)
    elif type(layer) in (nn.Conv2d, PaddedConv) and tiles:
        found["winograd"] = lambda: winograd(conv())
    return found


@torch.inference_mode()
def plan(network: nn.Module, run: Callable[[], Any]) -> list[Choice]:
    """Choose a form for every layer that has several, and change nothing.

    Args:
        network: trained, in evaluation, where and in what precision it will run.
        run: calls it on inputs like those to come; what each layer is given then is what it is measured with.
    Returns:
        One choice a layer, in the order of the network.
    """
    layers = {path: layer for path, layer in network.named_modules() if forms(layer)}
    given: dict[str, tuple[Tensor, ...]] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, path=path: given.setdefault(path, inputs) and None)
        for path, layer in layers.items()
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    known, found = _read(), dict[str, Choice]()
    fresh = dict[str, dict[str, float]]()
    for path, layer in layers.items():
        if path not in given:
            continue
        key = _key(layer, given[path])
        cached = key in known and known[key].keys() == {AS_TRAINED, *forms(layer)}
        if not cached:
            if not fresh:
                logger.info("measuring which rewrites are faster here, once")
            known[key] = fresh[key] = _measured(layer, given[path])
        times = known[key]
        best = min(times, key=lambda name: times[name] * (1 if name == AS_TRAINED else _MARGIN))
        shapes = ", ".join("x".join(map(str, tensor.shape)) for tensor in given[path])
        dtype = str(given[path][0].dtype).removeprefix("torch.")
        found[path] = Choice(path, type(layer).__name__, shapes, dtype, times, best, cached and key not in fresh)
    if fresh:
        kept = _write(fresh)
        if any(kept[key] != times for key, times in fresh.items()):  # another process was first
            return plan(network, run)
    return list(found.values())


def rewritten(network: nn.Module, run: Callable[[], Any]) -> list[Choice]:
    """Plan and apply; arguments as of `plan`, of which the network is changed."""
    choices = plan(network, run)
    apply(network, choices)
    return choices


def apply(network: nn.Module, choices: Sequence[Choice]) -> None:
    """Put the chosen forms in the place of the layers."""
    for choice in choices:
        if choice.form != AS_TRAINED:
            parent, _, name = choice.layer.rpartition(".")
            owner = network.get_submodule(parent)
            setattr(owner, name, forms(getattr(owner, name))[choice.form]())


def cache_file() -> Path:
    """Where choices are kept: ZELLIGE_CACHE, or zellige/ in the user's cache folder."""
    folder = os.environ.get("ZELLIGE_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zellige"
    return (Path(folder) if folder else base) / "rewrites.json"


def _measured(layer: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, float]:
    """Milliseconds of every form, measured in turns; the least, as all that disturbs makes a time longer."""
    built = {AS_TRAINED: layer} | {name: build() for name, build in forms(layer).items()}
    for form in built.values():
        form(*inputs)
    times = dict.fromkeys(built, float("inf"))
    began = time.perf_counter()
    for turn in range(_ROUNDS):
        for name, form in built.items():
            times[name] = min(times[name], _milliseconds(form, inputs))
        if turn + 1 >= _FEWEST_ROUNDS and time.perf_counter() - began > _SECONDS:
            break
    return {name: round(value, 4) for name, value in times.items()}


def _milliseconds(form: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    if inputs[0].device.type == "cuda":
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
    assert isinstance(layer, nn.Conv2d)
    parts: list[Any] = [type(layer).__name__, "x".join(map(str, layer.weight.shape)), layer.weight.dtype]
    parts += [layer.padding, getattr(layer, "replicate", False), getattr(layer, "spare", 0), layer.bias is not None]
    parts += [f"{'x'.join(map(str, t.shape))} {t.dtype} {t.stride()[1] == 1}" for t in inputs]
    return "|".join(map(str, [*parts, *_machine(str(inputs[0].device)), torch.get_num_threads()]))


@cache
def _machine(device: str) -> tuple[str, ...]:
    from importlib.metadata import version

    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else _processor()
    return name, torch.__version__, version("zellige")


def _processor() -> str:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def _read() -> dict[str, dict[str, float]]:
    """Choices on disk; a file that is missing, damaged or of another form is none."""
    try:
        stored = json.loads(cache_file().read_text(encoding="utf-8"))
        return {key: _times(times) for key, times in stored.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _times(stored: Any) -> dict[str, float]:
    times = {str(name): float(value) for name, value in stored.items()}
    if AS_TRAINED not in times or not all(0 < value < float("inf") for value in times.values()):
        raise ValueError("no times of a layer")
    return times


def _write(fresh: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Add choices to the file unless they have come there meanwhile; return what is in it then."""
    kept = fresh | _read()
    path = cache_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(kept, file, indent=1)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        logger.info("choices of rewrites are not kept: %s", error)
    return kept
