"""Runs a network of PyTorch with direct calls, as on a CPU."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from ..layers.ambient import own_modes
from .buckets import BUCKETS, Usage, checked_buckets, split
from .rows import Network, Rows, as_rows, repeated

__all__ = ["TorchRuntime"]


class TorchRuntime:
    """A network that is called directly, batch by batch, without gradients.

    Args:
        network: a function from tensors [N, ...] to one tensor [N, ...].
        device: the network's device; batches are moved there.
        buckets: batches have the largest size; the last batch has the size of the rest.
    """

    name = "torch"
    lends = False

    def __init__(self, network: Network, device: torch.device, buckets: Sequence[int] = BUCKETS) -> None:
        self.network, self.device = network, device
        self.buckets, self.usage = checked_buckets(buckets), Usage()

    def run(self, inputs: Sequence[Rows], *, host: bool = True) -> Iterator[tuple[int, Tensor]]:
        """See `Runtime.run`."""
        rows, count = as_rows(inputs)
        return self._batches(rows, count, host)

    def warm(self, counts: Iterable[int], example: Sequence[Rows]) -> None:
        """See `Runtime.warm`; libraries choose and prepare their kernels in the first call of a shape."""
        for size in sorted({batch.size for count in counts for batch in split(count, self.buckets)}):
            self._called(repeated(example, size))

    def _batches(self, rows: tuple[Tensor, ...], count: int, host: bool) -> Iterator[tuple[int, Tensor]]:
        for batch in split(count, self.buckets):
            result = self._called(tuple(tensor[batch.start : batch.start + batch.size] for tensor in rows))
            self.usage.add(batch)
            yield batch.start, result.cpu() if host else result

    @own_modes()
    def _called(self, rows: tuple[Tensor, ...]) -> Tensor:
        with torch.inference_mode():
            return self.network(*(tensor.to(self.device) for tensor in rows))
