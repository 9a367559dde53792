"""Endless batches of items, which can start at any item."""

from collections.abc import Iterator

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

__all__ = ["stream"]


class _Onward(Sampler[list[int]]):
    """Batches of consecutive items from `first` on, for ever; a resumed run starts further on."""

    def __init__(self, first: int, batch: int) -> None:
        self.first, self.batch = first, batch

    def __iter__(self) -> Iterator[list[int]]:
        start = self.first
        while True:
            yield list(range(start, start + self.batch))
            start += self.batch


def stream(items: Dataset[tuple[Tensor, ...]], *, first: int, batch: int, workers: int) -> Iterator[tuple[Tensor, ...]]:
    """Return endless batches of consecutive items with their tensors stacked; workers do not change the batches.

    Args:
        items: each a tuple of tensors, all of one length.
        first: number of the first item.
        batch: number of items in a batch.
        workers: processes that load items; with 0 this process loads them.
    """
    loader = DataLoader(
        items,
        batch_sampler=_Onward(first, batch),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        multiprocessing_context="spawn" if workers else None,
    )
    return map(tuple, iter(loader))
