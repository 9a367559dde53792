"""Which implementation of a kernel runs: the fastest that this device and this installation offer."""

import os
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Literal

import torch

from zellige.errors import DeviceError

Backend = Literal["triton", "native", "reference"]


def available_backends(device: torch.device) -> tuple[Backend, ...]:
    """Return the backends that can run on a device, best first.

    Args:
        device: where the tensors are.

    Returns:
        Always ends with "reference". "triton" is there for CUDA, and for the CPU under TRITON_INTERPRET=1, where it
        comes after "native" because the interpreter is for tests; "native" needs the compiled module.
    """
    backends: list[Backend] = ["reference"]
    if _has_triton() and (
        device.type == "cuda" or (device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1")
    ):
        backends.insert(0, "triton")
    if device.type == "cpu" and _has_native():
        backends.insert(0, "native")
    return tuple(backends)


def choose_backend(device: torch.device, backend: str | None) -> str:
    """Return the backend that was asked for, or the best one for the device.

    Args:
        device: where the tensors are.
        backend: a name, or None for the best.

    Returns:
        One of available_backends(device).

    Raises:
        DeviceError: the named backend does not exist or cannot run here.
    """
    available = available_backends(device)
    if backend is None:
        return available[0]
    if backend not in available:
        raise DeviceError(
            f"backend {backend!r} cannot run on {device} tensors here; choose one of {', '.join(available)}, or None."
        )
    return backend


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


@cache
def _has_native() -> bool:
    # Imported and not only looked for: a module built for another Python or C library is as good as none.
    try:
        import_module("zellige.kernels._native")
    except ImportError:
        return False
    return True
