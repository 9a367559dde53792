"""The training image that is nearest to a made one: whether a model remembers, or makes."""

import numpy as np
import numpy.typing as npt

__all__ = ["nearest"]

Pixels = npt.NDArray[np.uint8]
_AT_ONCE = 64  # training images


def nearest(
    images: Pixels, training: Pixels, masks: npt.NDArray[np.float32] | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The nearest training image of each image by mean absolute difference, as a share of the range.

    Args:
        images: uint8 [N, H, W, 3].
        training: uint8 [M, H, W, 3].
        masks: of each image, where it counts, [N, H, W]; None for everywhere.
    Returns:
        indices [N] and differences [N]; under a mask the mean over its pixels.
    Source: arXiv v2, figure 8; supplementary, section 9.
    """
    index, least = np.zeros(len(images), np.int64), np.full(len(images), np.inf)
    for k, image in enumerate(images):
        mask = np.ones(image.shape[:2], np.float32) if masks is None else masks[k]
        for start in range(0, len(training), _AT_ONCE):
            far = np.abs(training[start : start + _AT_ONCE].astype(np.int16) - image).mean(3) * mask
            found = far.sum((1, 2)) / (255 * mask.sum())
            best = int(found.argmin())
            if found[best] < least[k]:
                least[k], index[k] = found[best], start + best
    return index, least
