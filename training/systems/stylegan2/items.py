"""The items that a StyleGAN2 learns from: images, half of them mirrored."""

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...data.sources import Pictures

__all__ = ["Images"]


class Images(Dataset[tuple[Tensor, ...]]):
    """Item i is an image, uint8 [3, H, W], a function of (seed, i) alone.

    Args:
        pictures: where the images come from.
        seed: 0 takes picture i; any other seed takes others, that no shorter run under 0 meets.
        mirror: whether half of the images are mirrored.
    """

    def __init__(self, pictures: Pictures, seed: int = 0, *, mirror: bool = True) -> None:
        self.pictures, self.seed, self.mirror = pictures, seed, mirror

    def __getitem__(self, item: int) -> tuple[Tensor, ...]:
        """Return the image."""
        picture = self.pictures.image((self.seed << 40) + item)
        if self.mirror and np.random.default_rng((self.seed, item)).random() < 0.5:
            picture = picture[:, ::-1]
        return (torch.from_numpy(picture.transpose(2, 0, 1).copy()),)
