"""The losses of the rearranger, each a pure function of tensors to a scalar; the paper gives names and weights."""

from torch import Tensor
from torch.nn import functional as F

from ....engine.systems.rearranger.masks import similarities

__all__ = ["mapped", "masked", "reconstruction"]


def masked(features: Tensor, mask: Tensor, centroids: Tensor, sharpness: float) -> Tensor:
    """L_mask: cross-entropy of a pixel's label, with logits sharpness * cos(feature, centroid).

    Args:
        features: rearranged ones, [N, C, S, S].
        mask: the labels that they should carry, int64 [N, S, S].
        centroids: [K, C].
        sharpness: factor of the cosines.
    Source: section 3 names the loss; this form is ours.
    """
    return F.cross_entropy(sharpness * similarities(features, centroids), mask)


def reconstruction(
    features: tuple[Tensor, Tensor], images: tuple[Tensor, Tensor], deviation: Tensor, levels: int = 3
) -> tuple[Tensor, Tensor]:
    """The two terms of L_self: how far rearranged features and their images are from the source's.

    Args:
        features: made and wanted, [N, C, S, S]; their difference is divided by the deviation of each channel.
        images: made and wanted, [N, 3, R, R].
        deviation: of the generator's features, [C].
        levels: scales that images are compared at, each half as large as the one before.
    Returns:
        the mean absolute difference of features, in deviations; and the mean over scales of that of images.
    Source: section 3 names the loss; this form is ours, because LPIPS needs a downloaded network.
    """
    made, wanted = (x.float() / deviation[:, None, None] for x in features)
    image = images[0].new_zeros(())
    pair = images
    for _ in range(levels):
        image = image + F.l1_loss(*pair)
        pair = (F.avg_pool2d(pair[0], 2), F.avg_pool2d(pair[1], 2))
    return F.l1_loss(made, wanted), image / levels


def mapped(logits: Tensor, mask: Tensor) -> Tensor:
    """L_recon: cross-entropy of the mapper's logits [N, K, S, S] and proxy masks int64 [N, S, S], mean over pixels."""
    return F.cross_entropy(logits, mask)
