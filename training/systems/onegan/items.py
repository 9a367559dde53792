"""The items that OneGAN learns from: images of objects on a background, and backgrounds."""

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...data.scenes import Scenes

__all__ = ["SceneItems"]


class SceneItems(Dataset[tuple[Tensor, ...]]):
    """Item i is a scene and a background, each uint8 [3, H, W], without labels, which training may not see.

    Args:
        scenes: the source of both.
        seed: 0 takes scene i and background i; another seed takes numbers that no shorter run under 0 reaches.
    """

    def __init__(self, scenes: Scenes, seed: int = 0) -> None:
        self.scenes, self.seed = scenes, seed

    def __getitem__(self, item: int) -> tuple[Tensor, ...]:
        """Return the image of a scene, and a background."""
        index = (self.seed << 40) + item
        scene, background = self.scenes.scene(index).image, self.scenes.background(index)
        # Both are copied, because an image of a folder is the array in its cache.
        return torch.tensor(scene).permute(2, 0, 1), torch.tensor(background).permute(2, 0, 1)
