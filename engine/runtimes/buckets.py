"""The sizes of batches, the batches that a number of images becomes, and a count of those that were run."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from zellige.errors import SizeError

__all__ = ["BUCKETS", "LAUNCH", "Batch", "Usage", "checked_buckets", "cover", "of_patches", "split"]

BUCKETS = (1, 8, 32)  # images in a batch, of every runtime and of the profiles of engines, by default
_PATCHES = 128  # in the largest batch of patches
# Images that could be made in the time that one more batch costs by itself. Chosen, not measured; a constant, since
# what is measured differs from run to run, and with the batches may go the last bits of a picture.
LAUNCH = 4


@dataclass(frozen=True)
class Batch:
    """Images start, ..., start + count - 1, run as a batch of `size` >= count; images beyond count are thrown away."""

    start: int
    count: int
    size: int

    @property
    def padding(self) -> int:
        """Images that are made and thrown away."""
        return self.size - self.count


@dataclass
class Usage:
    """What a runtime has done since it was opened.

    Attributes:
        images: that were asked for.
        padding: that were made and thrown away.
        batches: how often each size was run.
        graphs: sizes that are captured as CUDA graphs, in the order of their capture.
        eager: why a runtime for CUDA graphs goes without them; empty where it does not.
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
        """For reports in JSON, whose keys are text."""
        batches = {str(size): self.batches[size] for size in sorted(self.batches)}
        row = {"images": self.images, "padding": self.padding, "batches": batches, "graphs": sorted(self.graphs)}
        return row | ({"eager": self.eager} if self.eager else {})


def checked_buckets(buckets: Iterable[int]) -> tuple[int, ...]:
    """Sizes of batches, ascending and each once.

    Raises:
        SizeError: there are none, or one is below 1.
    """
    sizes = tuple(sorted(set(buckets)))
    if not sizes or sizes[0] < 1:
        raise SizeError(f"batches of {list(sizes)} images cannot be run; give one size or more, each 1 or more")
    return sizes


def of_patches(area: int) -> tuple[int, ...]:
    """Sizes of batches of blocks of `area` patches: the largest useful one, and a quarter and a sixteenth of it.

    Devices whose batches have fixed sizes pad little with these; others look at the largest alone.
    """
    most = max(1, _PATCHES // area)
    return checked_buckets(-(-most // part) for part in (1, 4, 16))


def split(count: int, buckets: Sequence[int]) -> list[Batch]:
    """Batches of the largest bucket and one with the rest: for devices that run any size. Nothing is padded.

    Args:
        count: of images, 0 or more.
        buckets: sizes, each 1 or more; the largest alone counts.
    """
    largest = max(buckets)
    return [Batch(at, n, n) for at in range(0, count, largest) for n in [min(largest, count - at)]]


def cover(count: int, buckets: Sequence[int], launch: float = LAUNCH) -> list[Batch]:
    """Batches of no sizes but the buckets, from large to small, for graphs that were captured once.

    What is left after the whole batches of a bucket is either covered by smaller buckets, or is the last batch, padded
    to that bucket. The cheaper of both is taken, where a batch of b images costs b + launch; of equals, that which
    throws less away. So 42 images under (1, 8, 32) are 32 + 8 + 1 + 1, and 31 are one batch of 32.

    Args:
        count: of images, 0 or more.
        buckets: captured sizes, ascending, each 1 or more.
        launch: what a batch costs by itself, in images.
    """
    sizes = [buckets[-1]] * (count // buckets[-1]) + _rest(count % buckets[-1], buckets, launch)
    batches, start = [], 0
    for size in sizes:
        batches.append(Batch(start, min(size, count - start), size))
        start += size
    return batches


def _rest(count: int, buckets: Sequence[int], launch: float) -> list[int]:
    """Sizes for fewer images than the largest bucket."""
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
