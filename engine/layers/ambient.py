"""Modes of torch that a host program has set, kept away from what a model computes."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch

__all__ = ["own_modes"]

_CPU = torch.device("cpu")
_DEVICES = ("cpu", "cuda")


@dataclass
class _OfProcess:
    """The modes that all threads share: the default dtype, and how float32 is multiplied."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0
    dtype: torch.dtype = torch.float32
    products: str = "highest"

    def enter(self) -> None:
        with self.lock:
            if not self.users:
                self.dtype, self.products = torch.get_default_dtype(), torch.get_float32_matmul_precision()
                self._set(torch.float32, "highest")
            self.users += 1

    def leave(self) -> None:
        with self.lock:
            self.users -= 1
            if not self.users:
                self._set(self.dtype, self.products)

    def _set(self, dtype: torch.dtype, products: str) -> None:
        if torch.get_default_dtype() != dtype:
            torch.set_default_dtype(dtype)
        if torch.get_float32_matmul_precision() != products:
            torch.set_float32_matmul_precision(products)


_process = _OfProcess()


@contextmanager
def own_modes() -> Iterator[None]:
    """Compute as if the host program had set nothing: a context manager, and a decorator of functions.

    Autocast, inference mode, the default device and dtype, and the precision of float32 products are torch's own
    inside, and the program's again afterwards. It is not for generators: the caller's code would run inside it. Nothing
    is done about `torch.use_deterministic_algorithms`, which keeps a CPU's bytes, and about the number of threads,
    which belongs to the promise of equal bytes.
    """
    with ExitStack() as stack:
        for device in _DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.is_inference_mode_enabled():  # weights that are loaded inside could never be trained
            stack.enter_context(torch.inference_mode(False))
        if torch.get_default_device() != _CPU:
            stack.enter_context(_CPU)
        _process.enter()
        stack.callback(_process.leave)
        yield
