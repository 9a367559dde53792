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
        dtype: of the tensors; None where every backend takes all that the function takes.
        native: dtypes of the C++ kernel.
        triton: dtypes of the Triton kernel.

    Returns:
        One of available_backends(device).

    Raises:
        DeviceError: the named backend does not exist or cannot run here, or not in this dtype.
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
    # Imported and not only looked for: a module built for another Python or C library is as good as none.
    try:
        module = import_module("zellige.kernels._native")
    except ImportError:
        return False
    module.use_threads(_pool())
    return True


def _pool() -> int:
    """Address of the entry to the OpenMP pool that torch uses, 0 if torch has none.

    With a pool of its own the native kernels would leave two sets of threads spinning on the same cores. A process may
    hold several OpenMP libraries, such as scikit-learn's. Looked up through torch's own module, the name leads to the
    one that torch is linked with.
    """
    try:
        # The runtimes of LLVM and Intel have GNU's entry too.
        return ctypes.cast(ctypes.CDLL(torch._C.__file__).GOMP_parallel, ctypes.c_void_p).value or 0
    except (OSError, AttributeError):
        return 0
