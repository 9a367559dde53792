"""COCO-GAN's own losses, each a pure function of tensors: the variety of what it makes."""

from torch import Tensor
from torch.nn import functional as F

__all__ = ["diversity_shortfall", "pair_distance"]


def pair_distance(images: Tensor) -> Tensor:
    """Mean absolute difference between images 2k and 2k + 1 of a batch [2n, C, H, W]: a scalar."""
    return (images[0::2] - images[1::2]).abs().mean()


def diversity_shortfall(fake: Tensor, real_distance: Tensor | float, target: float) -> Tensor:
    """How far generated images of equal coordinates fall short of the variety of real ones.

    relu(target - d(fake) / d(real)), d the mean absolute difference within the pairs of `pair_distance`. Unlike the
    mode-seeking ratio |z - z'| / d(fake), it vanishes once the images differ as much as they should.

    Args:
        fake: [2n, C, H, W]; images 2k and 2k + 1 share coordinates and differ in their latents.
        real_distance: running mean of d over real pairs.
        target: wanted ratio; 1 means as varied as the data.
    Source: this project, after Mao et al. 2019 (mode seeking GANs).
    """
    return F.relu(target - pair_distance(fake) / real_distance)
