"""COCO-GAN's own losses, pure functions of tensors, which reward variety among generated images."""

from torch import Tensor
from torch.nn import functional as F

__all__ = ["diversity_shortfall", "pair_distance"]


def pair_distance(images: Tensor) -> Tensor:
    """Return the mean absolute difference between images 2k and 2k + 1 of a batch [2n, C, H, W], a scalar."""
    return (images[0::2] - images[1::2]).abs().mean()


def diversity_shortfall(fake: Tensor, real_distance: Tensor | float, target: float) -> Tensor:
    """Return how far generated images of equal coordinates fall short of the variety of real ones.

    relu(target - d(fake) / d(real)), where d is `pair_distance`. Unlike the mode-seeking ratio |z - z'| / d(fake), it
    vanishes once the images differ as much as they should.

    Args:
        fake: [2n, C, H, W]; images 2k and 2k + 1 share coordinates and differ in their latents.
        real_distance: running mean of d over real pairs.
        target: wanted ratio; 1 asks for the variety of the data.
    Source: this project, after Mao et al. 2019 (mode seeking GANs).
    """
    return F.relu(target - pair_distance(fake) / real_distance)
