"""Keeps the torch modes that a host program has set away from a model's computations."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

__all__ = ["own_modes"]

_CPU = torch.device("cpu")
_DEVICES = ("cpu", "cuda")


class _Float32:
    """Keeps the default dtype, which all threads share, at float32 from the first entry to the last exit."""

    def __init__(self) -> None:
        self._lock, self._users, self._before = threading.Lock(), 0, torch.float32

    def enter(self) -> None:
        with self._lock:
            if not self._users:
                self._before = torch.get_default_dtype()
                if self._before != torch.float32:
                    torch.set_default_dtype(torch.float32)
            self._users += 1

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users and self._before != torch.float32:
                torch.set_default_dtype(self._before)


_float32 = _Float32()


@contextmanager
def own_modes() -> Iterator[None]:
    """Open or run a model as if the host program had set no modes; works as a context manager and as a decorator.

    Inside, autocast and inference mode are off, the default device is the CPU and the default dtype is float32.
    Afterwards the host's modes are back. Do not decorate generators, because their caller would run under these modes
    between two results.

    Other modes are left alone. `torch.use_deterministic_algorithms` and `torch.set_flush_denormal` changed no byte of
    the bundled models on a CPU. A host sets the precision of float32 products, such as TF32, for the speed of its GPU.
    Equal bytes are promised for one number of threads, so the host's number stays.
    """
    with ExitStack() as stack:
        for device in _DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.is_inference_mode_enabled():  # weights that are loaded in inference mode could not be trained
            stack.enter_context(torch.inference_mode(False))
        if torch.get_default_device() != _CPU:
            stack.enter_context(_CPU)
        _float32.enter()
        stack.callback(_float32.leave)
        yield
