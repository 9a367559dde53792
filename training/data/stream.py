"""Endless batches of items, from any item on."""

from collections.abc import Iterator

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

__all__ = ["stream"]


class _Onward(Sampler[list[int]]):
    """Batches of consecutive items from `first` on, for ever; resuming is starting further on."""

    def __init__(self, first: int, batch: int) -> None:
        self.first, self.batch = first, batch

    def __iter__(self) -> Iterator[list[int]]:
        start = self.first
        while True:
            yield list(range(start, start + self.batch))
            start += self.batch


def stream(items: Dataset[tuple[Tensor, ...]], *, first: int, batch: int, workers: int) -> Iterator[tuple[Tensor, ...]]:
    """Endless batches of consecutive items, their tensors stacked; equal for any number of workers.

    Args:
        items: each a tuple of tensors, all of one length.
        first: number of the first item.
        batch: items a batch.
        workers: processes that load them; 0 loads here.
    """
    loader = DataLoader(
        items,
        batch_sampler=_Onward(first, batch),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        multiprocessing_context="spawn" if workers else None,
    )
    return map(tuple, iter(loader))
