"""Predicts the memory that a forward pass needs, and measures the memory that a block of code took."""

import ctypes
import os
import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..layers.ambient import own_modes

__all__ = ["Peak", "live_bytes", "measured_peak", "resident_bytes"]

_CPU = torch.device("cpu")


class _LiveStorage(TorchDispatchMode):
    """Adds up the storages that are alive after each operation, and keeps the largest sum."""

    def __init__(self, known: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known = {tensor.untyped_storage()._cdata for tensor in known}
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.known:
                    self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.alive = {key: pair for key, pair in self.alive.items() if not pair[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return result


def live_bytes(
    module: nn.Module, inputs: Callable[[int], tuple[Any, ...]], batch: int, device: torch.device = _CPU
) -> int:
    """Peak bytes of the tensors that a forward pass creates; the pass runs on fake tensors, without data.

    Args:
        module: the module to run; its parameters do not count.
        inputs: makes the arguments for a batch size, on the device.
        batch: the batch size.
        device: the device that tensors on the meta device are taken to be on.
    Returns:
        bytes, without the workspaces inside of library calls.
    """
    with own_modes(), FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():

        def like(tensor: Tensor) -> Tensor:
            if tensor.is_meta:
                return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
            return mode.from_tensor(tensor)

        arguments = inputs(batch)
        # A copy takes the tensors without data: put into the module itself, they would reach threads that run it.
        known = {id(tensor): like(tensor) for tensor in (*module.parameters(), *module.buffers())}
        stand_in = deepcopy(module, dict(known))
        with _LiveStorage(list(known.values())) as live:
            stand_in(*arguments)
    return live.peak


@dataclass
class Peak:
    """The most bytes by which the process grew (CPU) or which the allocator reserved (CUDA).

    Attributes:
        bytes: the peak; it is final when the measurement is over.
    """

    bytes: int = 0
    _used: Callable[[], int] | None = None

    def look(self) -> None:
        """Sample the memory in use now; needed only for CUDA memory outside torch's allocator, which has no record."""
        if self._used is not None:
            self.bytes = max(self.bytes, self._used())


@contextmanager
def measured_peak(device: torch.device, budget: int | None = None, *, whole: bool = False) -> Iterator[Peak]:
    """Measure the memory that a block takes at its peak; on CUDA also cap torch's allocator at the budget.

    On a CPU the peak is the growth of the resident set over its size on entry. Linux lets the process reset its
    high-water mark. On other systems the mark is that of the process's whole life, so earlier peaks may count.

    Args:
        device: the device whose memory is measured.
        budget: bytes.
        whole: on CUDA measure the loss of the device's free memory since entry, at each call of `Peak.look`, for
            libraries with an allocator of their own; memory of other processes on the device counts too.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        free, total = torch.cuda.mem_get_info(device)
        peak = Peak(_used=(lambda: free - torch.cuda.mem_get_info(device)[0]) if whole else None)
        if budget is not None:
            torch.cuda.set_per_process_memory_fraction(min(budget / total, 1.0), device)
        try:
            yield peak
        finally:
            peak.look()
            peak.bytes = peak.bytes if whole else torch.cuda.max_memory_reserved(device)
            torch.cuda.set_per_process_memory_fraction(1.0, device)
        return
    peak = Peak()
    _return_free_memory()
    before = resident_bytes()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    try:
        yield peak
    finally:
        peak.bytes = max(_high_water() - before, 0)


def _return_free_memory() -> None:
    """Return freed heap pages to the system, so that reuse of an earlier render's pages counts as growth."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def resident_bytes() -> int:
    """The bytes of memory that this process has; 0 on systems that do not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _high_water() -> int:
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
