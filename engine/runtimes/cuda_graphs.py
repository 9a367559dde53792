"""Runs a network from captured CUDA graphs: a batch is one launch, and its copies overlap the next batch."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.cuda import CUDAGraph, Event, Stream

from zellige.errors import ShapeError

from ..layers.ambient import own_modes
from .buckets import BUCKETS, Batch, Usage, checked_buckets, cover, split
from .pipeline import Turn, overlapped
from .rows import Network, Rows, as_rows, repeated

__all__ = ["GraphRuntime"]

logger = logging.getLogger(__name__)
_WARM_UPS = 3  # calls before a capture; in them libraries choose kernels, Triton compiles, and caches are filled


@dataclass
class _Slot:
    """The buffers of one batch: its page-locked inputs, its result on the device, and its page-locked result."""

    staged: list[Tensor]
    computed: Event
    copied: Event
    result: Tensor | None = None
    host: Tensor | None = None


class GraphRuntime:
    """A network in captured CUDA graphs, one for each bucket.

    The first batch, or `warm`, allocates everything for the largest bucket: the inputs of the captured graphs, and two
    slots that take turns. So the copy of one batch's result to the host, on its own stream, overlaps the computation of
    the next batch. Later runs allocate nothing, and Python's work for a batch does not depend on the network. A result
    has the bits that a direct call of the network with a batch of the bucket's size gives. If the network cannot be
    captured, it is called directly from then on, with a warning. Some versions of torch then can no longer draw random
    numbers on the device, which no model here does.

    Args:
        network: a function from tensors [N, ...] to one tensor [N, ...], in evaluation and without gradients. Each call
            must run the same kernels whatever the values are. Its weights must not move, because captured graphs hold
            their addresses.
        device: the network's CUDA device.
        buckets: sizes of batches.
    """

    name = "torch"
    lends = True

    def __init__(self, network: Network, device: torch.device, buckets: Sequence[int] = BUCKETS) -> None:
        self.network, self.device = network, device
        self.buckets, self.usage = checked_buckets(buckets), Usage()
        self._turn = Turn()
        with torch.cuda.device(device):
            self._compute, self._copy = Stream(), Stream()
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: dict[int, tuple[CUDAGraph, Tensor]] = {}
        self._inputs: list[Tensor] = []
        self._slots: list[_Slot] = []

    def run(self, inputs: Sequence[Rows], *, host: bool = True) -> Iterator[tuple[int, Tensor]]:
        """See `Runtime.run`; the rows are lent until the next batch is asked for."""
        rows, count = as_rows(inputs)
        self._check(rows)
        return self._batches(rows, count, host)

    def warm(self, counts: Iterable[int], example: Sequence[Rows]) -> None:
        """See `Runtime.warm`."""
        rows = repeated(example, self.buckets[-1])
        self._check(rows)
        with self._turn.taken(), own_modes(), torch.cuda.device(self.device), torch.inference_mode():
            # From large to small, because the smaller captured graphs then find their memory in the shared pool.
            for size in sorted({batch.size for count in counts for batch in self._plan(count)}, reverse=True):
                self._ready(size, rows)

    def __reduce__(self) -> tuple[Any, ...]:
        """Make a copy from the network, so that it captures graphs of its own."""
        return GraphRuntime, (self.network, self.device, self.buckets)

    def _batches(self, rows: tuple[Tensor, ...], count: int, host: bool) -> Iterator[tuple[int, Tensor]]:
        with self._turn.taken():
            self._check(rows)
            if count:
                with own_modes(), torch.cuda.device(self.device), torch.inference_mode():
                    for size in sorted({batch.size for batch in self._plan(count)}, reverse=True):
                        self._ready(size, rows)
            batches = self._plan(count)
            if padding := sum(batch.padding for batch in batches):
                sizes = [batch.size for batch in batches]
                logger.info("%d images in batches of %s: %d more are made and thrown away", count, sizes, padding)

            def submit(number: int, batch: Batch) -> None:
                self._submit(self._slots[number % 2], batch, rows, host)

            def collect(number: int, batch: Batch) -> Tensor:
                return self._collect(self._slots[number % 2], batch, host)

            for batch, result in overlapped(batches, submit, collect):
                yield batch.start, result

    def _plan(self, count: int) -> list[Batch]:
        return (split if self.usage.eager else cover)(count, self.buckets)

    def _submit(self, slot: _Slot, batch: Batch, rows: tuple[Tensor, ...], host: bool) -> None:
        """Enqueue a batch: copy its inputs to the device, run the network, copy the result to the slot and the host."""
        count, size = batch.count, batch.size
        # Usually returns at once, because the slot's last batch was collected. It waits if a caller abandoned a run or
        # left its results on the device.
        slot.computed.synchronize()
        slot.copied.synchronize()
        with own_modes(), torch.cuda.device(self.device), torch.inference_mode():
            for staged, tensor in zip(slot.staged, rows, strict=True):
                staged[:count].copy_(tensor[batch.start : batch.start + count])
                if size > count:
                    staged[count:size].copy_(staged[count - 1 : count].expand_as(staged[count:size]))
            # The caller's work on results that are still on the device must be over before they are overwritten.
            self._compute.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._compute):
                for place, staged in zip(self._inputs, slot.staged, strict=True):
                    place[:size].copy_(staged[:size], non_blocking=True)
                result = self._launched(size)
                assert slot.result is not None and slot.host is not None
                slot.result[:count].copy_(result[:count])
                slot.computed.record()
            if host:
                with torch.cuda.stream(self._copy):
                    self._copy.wait_event(slot.computed)
                    slot.host[:count].copy_(slot.result[:count], non_blocking=True)
                    slot.copied.record()
        self.usage.add(batch)

    def _launched(self, size: int) -> Tensor:
        if self.usage.eager:
            return self.network(*(place[:size] for place in self._inputs))
        graph, result = self._graphs[size]
        graph.replay()
        return result

    def _collect(self, slot: _Slot, batch: Batch, host: bool) -> Tensor:
        assert slot.result is not None and slot.host is not None
        if host:
            slot.copied.synchronize()
            return slot.host[: batch.count]
        torch.cuda.current_stream(self.device).wait_event(slot.computed)
        return slot.result[: batch.count]

    def _check(self, rows: tuple[Tensor, ...]) -> None:
        """Refuse inputs with other shapes or dtypes than the first ones, which were captured."""
        if not self._inputs:
            return
        expected = [(list(place.shape[1:]), place.dtype) for place in self._inputs]
        if [(list(tensor.shape[1:]), tensor.dtype) for tensor in rows] != expected:
            given = ", ".join(f"{tensor.dtype} {list(tensor.shape)}" for tensor in rows)
            allowed = ", ".join(f"{dtype} {['N', *shape]}".replace("'", "") for shape, dtype in expected)
            raise ShapeError(f"this runtime was captured for inputs {allowed}; got {given}")

    def _ready(self, size: int, rows: tuple[Tensor, ...]) -> None:
        """Allocate the buffers unless they exist, and capture the graph of a size with rows of the right shapes."""
        if size in self._graphs or (self.usage.eager and self._slots[0].result is not None):
            return
        largest = self.buckets[-1]
        if not self._inputs:
            self._slots = [_Slot([_pinned(tensor, largest) for tensor in rows], Event(), Event()) for _ in range(2)]
            self._inputs = [
                torch.zeros(largest, *tensor.shape[1:], dtype=tensor.dtype, device=self.device) for tensor in rows
            ]
        self._compute.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._compute):
            for place, tensor in zip(self._inputs, repeated(rows, size), strict=True):
                place[:size].copy_(tensor)
            for _ in range(_WARM_UPS):
                result = self.network(*(place[:size] for place in self._inputs))
            if result.dim() == 0 or len(result) != size:
                raise ShapeError(f"the network made {list(result.shape)} of {size} rows; it must give one row for each")
            for slot in self._slots:
                if slot.result is None:
                    slot.result = torch.empty(largest, *result.shape[1:], dtype=result.dtype, device=self.device)
                    slot.host = _pinned(result, largest)
            del result
            # Inside of the stream's block, because a failed capture leaves its own stream as the current one.
            self._capture(size)

    def _capture(self, size: int) -> None:
        graph, inputs = CUDAGraph(), [place[:size] for place in self._inputs]
        try:
            # The mode lets other threads go on with their work on the device, which the strictest mode would forbid.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._compute, capture_error_mode="thread_local"):
                result = self.network(*inputs)
        except Exception as error:
            cause = error.__context__ or error  # the last error says only that the capture broke; its context says why
            reason = next(iter(str(cause).strip().splitlines()), "") or type(cause).__name__
            self.usage.eager = f"the network cannot be captured as a CUDA graph ({reason})"
            self.usage.graphs.clear()
            self._graphs.clear()
            logger.warning("%s; it is called directly, which takes longer for small batches", self.usage.eager)
            return
        self._graphs[size] = graph, result
        self.usage.graphs.append(size)


def _pinned(like: Tensor, rows: int) -> Tensor:
    return torch.empty(rows, *like.shape[1:], dtype=like.dtype, pin_memory=True)
