"""Splits a number of images into batches of fixed sizes, the buckets, and counts the batches that were run."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from zellige.errors import SizeError

__all__ = ["BUCKETS", "LAUNCH", "Batch", "Usage", "checked_buckets", "cover", "of_patches", "split"]

BUCKETS = (1, 8, 32)  # the default sizes of batches, for every runtime and for the profiles of engines
_PATCHES = 128  # patches in the largest batch of patches
# The fixed cost of one more batch, in images that could be made in its time. It is a chosen constant, because a
# measured cost would differ from run to run, and other batches may change a picture's last bits.
LAUNCH = 4


@dataclass(frozen=True)
class Batch:
    """Images start, ..., start + count - 1 in a batch of `size` >= count; images beyond count are thrown away."""

    start: int
    count: int
    size: int

    @property
    def padding(self) -> int:
        """The number of images that are made and thrown away."""
        return self.size - self.count


@dataclass
class Usage:
    """Counts of the work that a runtime has done since it was opened.

    Attributes:
        images: number of images that were asked for.
        padding: number of images that were made and thrown away.
        batches: number of batches that were run, by size.
        graphs: sizes whose work is captured, in the order of their capture.
        eager: the reason why a runtime that captures runs without capture; empty if it captures.
    """

    images: int = 0
    padding: int = 0
    batches: dict[int, int] = field(default_factory=dict)
    graphs: list[int] = field(default_factory=list)
    eager: str = ""

    def add(self, batch: Batch) -> None:
        """Count a batch that was run."""
        self.images += batch.count
        self.padding += batch.padding
        self.batches[batch.size] = self.batches.get(batch.size, 0) + 1

    def row(self) -> dict[str, Any]:
        """The counts as JSON for reports; sizes are text, because JSON's keys are."""
        batches = {str(size): self.batches[size] for size in sorted(self.batches)}
        row = {"images": self.images, "padding": self.padding, "batches": batches, "graphs": sorted(self.graphs)}
        return row | ({"eager": self.eager} if self.eager else {})


def checked_buckets(buckets: Iterable[int]) -> tuple[int, ...]:
    """The sizes of batches in ascending order, each once.

    Raises:
        SizeError: there is no size, or one is below 1.
    """
    sizes = tuple(sorted(set(buckets)))
    if not sizes or sizes[0] < 1:
        raise SizeError(f"batches of {list(sizes)} images cannot be run; give one size or more, each 1 or more")
    return sizes


def of_patches(area: int) -> tuple[int, ...]:
    """Batch sizes for blocks of `area` patches: the largest useful one, and a quarter and a sixteenth of it.

    Devices whose batches have fixed sizes pad little with these sizes; others use only the largest.
    """
    most = max(1, _PATCHES // area)
    return checked_buckets(-(-most // part) for part in (1, 4, 16))


def split(count: int, buckets: Sequence[int]) -> list[Batch]:
    """Batches of the largest bucket and one with the rest, for devices that run any size; nothing is padded.

    Args:
        count: number of images, 0 or more.
        buckets: sizes, each 1 or more; only the largest counts.
    """
    largest = max(buckets)
    return [Batch(at, n, n) for at in range(0, count, largest) for n in [min(largest, count - at)]]


def cover(count: int, buckets: Sequence[int], launch: float = LAUNCH) -> list[Batch]:
    """Batches whose sizes are buckets, from large to small, for devices whose work is captured.

    The rest after a bucket's whole batches is covered by smaller buckets, or it is the last batch, padded to that
    bucket. A batch of b images costs b + launch. The cheaper cover is taken; of two equally cheap ones, the one that
    throws less away. So 42 images under (1, 8, 32) are 32 + 8 + 1 + 1, and 31 are one batch of 32.

    Args:
        count: number of images, 0 or more.
        buckets: captured sizes, ascending, each 1 or more.
        launch: the fixed cost of a batch, in images.
    """
    sizes = [buckets[-1]] * (count // buckets[-1]) + _rest(count % buckets[-1], buckets, launch)
    batches, start = [], 0
    for size in sizes:
        batches.append(Batch(start, min(size, count - start), size))
        start += size
    return batches


def _rest(count: int, buckets: Sequence[int], launch: float) -> list[int]:
    """The sizes of batches that cover fewer images than the largest bucket holds."""
    if not count:
        return []
    place = bisect_left(buckets, count)
    padded = buckets[place]
    if padded == count or not place:
        return [padded]
    below = buckets[place - 1]
    whole, left = divmod(count, below)
    smaller = [below] * whole + _rest(left, buckets[:place], launch)

    def cost(sizes: list[int]) -> tuple[float, int]:
        return sum(sizes) + launch * len(sizes), sum(sizes)

    return min(smaller, [padded], key=cost)
