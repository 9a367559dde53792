"""Which implementation of a kernel runs: the fastest that this device and this installation offer."""

import ctypes
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
        Their names; "reference" is always the last. "native" needs the compiled module. "triton" needs CUDA, or the CPU
        under TRITON_INTERPRET=1; there it comes after "native", because the interpreter is for tests.
    """
    backends: list[Backend] = ["reference"]
    if _has_triton() and (
        device.type == "cuda" or (device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1")
    ):
        backends.insert(0, "triton")
    if device.type == "cpu" and _has_native():
        backends.insert(0, "native")
    return tuple(backends)


def choose_backend(
    device: torch.device,
    backend: str | None,
    dtype: torch.dtype | None = None,
    *,
    native: tuple[torch.dtype, ...] | None = None,
    triton: tuple[torch.dtype, ...] = (torch.float32, torch.float16, torch.bfloat16),
) -> str:
    """Return the backend that was asked for, or the best one for the device and the dtype.

    Args:
        device: where the tensors are.
        backend: a name, or None for the best.
        dtype: of the tensors; None if every backend takes all dtypes that the function takes.
        native: dtypes of the C++ kernel.
        triton: dtypes of the Triton kernel.

    Returns:
        One of available_backends(device).

    Raises:
        DeviceError: the named backend does not exist, or cannot run here or in this dtype.
    """
    taken = {"triton": triton, "native": native}
    available = [
        name
        for name in available_backends(device)
        if dtype is None or name == "reference" or dtype in (taken[name] or ())
    ]
    if backend is None:
        return available[0]
    if backend not in available:
        what = f"{device} tensors" if dtype is None else f"{str(dtype).removeprefix('torch.')} {device} tensors"
        raise DeviceError(
            f"backend {backend!r} cannot run on {what} here; choose one of {', '.join(available)}, or None."
        )
    return backend


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


@cache
def _has_native() -> bool:
    # The module is imported, because one that was built for another Python or C library is found but does not load.
    try:
        module = import_module("zellige.kernels._native")
    except ImportError:
        return False
    module.use_threads(_pool())
    return True


def _pool() -> int:
    """Return the address of the entry to the OpenMP pool that torch uses, 0 if torch has none.

    If the native kernels had a pool of their own, two sets of threads would spin on the same cores. A process may hold
    several OpenMP libraries, such as scikit-learn's. The name is looked up in torch's own module, because there it
    leads to the library that torch is linked with.
    """
    try:
        # The OpenMP libraries of LLVM and Intel have GNU's entry too.
        return ctypes.cast(ctypes.CDLL(torch._C.__file__).GOMP_parallel, ctypes.c_void_p).value or 0
    except (OSError, AttributeError):
        return 0
