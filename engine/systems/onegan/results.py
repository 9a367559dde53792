"""Results of OneGAN's tasks that consist of several arrays."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Clusters", "Parts"]

Pixels = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Parts:
    """Images and the parts that they are composed of.

    Args:
        image, foreground, background: uint8 [N, R, R, 3].
        mask: uint8 [N, R, R]; 255 shows only the foreground, 0 only the background.
    """

    image: Pixels
    foreground: Pixels
    background: Pixels
    mask: Pixels


@dataclass(frozen=True)
class Clusters:
    """The classes of images.

    Args:
        child, parent: the likeliest classes, int64 [N].
        confidence: the probability of the child class, float32 [N].
    """

    child: Indices
    parent: Indices
    confidence: npt.NDArray[np.float32]

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of different classes among the images."""
        return {"children": len(np.unique(self.child)), "parents": len(np.unique(self.parent))}
