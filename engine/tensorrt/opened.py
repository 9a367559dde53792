"""Opens an engine from an engine's file, or from an ONNX model, which is built for this device and cached."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from zellige.errors import CheckpointError
from zellige.version import __version__

from ..files.hostile import open_regular
from .build import build_engine, checked_targets
from .cache import EngineKey, cached
from .driver import devices
from .engine import Engine, cupy_for, has_device
from .flavours import FlavourName, flavour_for, flavour_of_file
from .graph import Profile, read_graph

__all__ = ["built_for", "open_engine"]


def open_engine(
    model: Path | bytes,
    buckets: Sequence[int],
    *,
    device: int = 0,
    memory: int | None = None,
    flavour: FlavourName | None = None,
) -> Engine:
    """Open an engine; an ONNX model is built first, with a profile for each bucket, and the engine is cached.

    Args:
        model: the path or the bytes of an engine or of an ONNX model.
        buckets, device, memory: as in `Engine`.
        flavour: the flavour that builds, as in `build_engine`.
    Raises:
        ZelligeError: as in `Engine` and `build_engine`.
    """
    has_device(device)
    content = model if isinstance(model, bytes) else _read(model)
    if flavour_of_file(content) is None:
        content = built_for(model, buckets, device, flavour)
    return Engine(content, buckets, device=device, memory=memory)


def built_for(model: Path | bytes, buckets: Sequence[int], device: int = 0, name: FlavourName | None = None) -> bytes:
    """The engine of an ONNX model for a device, with a profile for each bucket; read from the cache or built now.

    Args:
        model: the path or the bytes of an ONNX model.
        buckets, device: as in `Engine`.
        name: the name of the flavour.
    Raises:
        DeviceError: there is no such device.
        ZelligeError: as in `build_engine`.
    """
    has_device(device)
    flavour, here = flavour_for(name, False, "running TensorRT engines"), devices()[device]
    library = flavour.library("running TensorRT engines")
    # An engine of TensorRT-RTX depends only on the capability, so other devices of the same capability can share it.
    targets = checked_targets(flavour, [here.capability]) if flavour.targets else ()
    profiles = _profiles(buckets)
    key = EngineKey(
        hashlib.sha256(read_graph(model, flavour).content).hexdigest(), profiles, targets or (here.capability,),
        "" if flavour.targets else here.name, flavour.name,
        {flavour.module: library.__version__, "zellige": __version__},
    )  # fmt: skip
    with cupy_for(flavour).cuda.Device(device):  # full TensorRT builds for the current device
        return cached(key, lambda: build_engine(model, flavour=flavour.name, targets=targets, profile=profiles).content)


def _read(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read()
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL character
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(
            f"{path} cannot be read: {reason}; give the path of an engine or of an ONNX model"
        ) from error


def _profiles(buckets: Sequence[int]) -> tuple[Profile, ...]:
    return tuple((size, size, size) for size in sorted(set(buckets)))
