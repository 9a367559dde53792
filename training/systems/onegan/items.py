"""What OneGAN learns from, item by item: images of objects on a background, and backgrounds."""

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...data.scenes import Scenes

__all__ = ["SceneItems"]


class SceneItems(Dataset[tuple[Tensor, ...]]):
    """Item i is a scene and a background, each uint8 [3, H, W]; nothing that training must not know is among them.

    Args:
        scenes: where both come from.
        seed: 0 takes scene i and background i; any other seed takes others, that no shorter run under 0 meets.
    """

    def __init__(self, scenes: Scenes, seed: int = 0) -> None:
        self.scenes, self.seed = scenes, seed

    def __getitem__(self, item: int) -> tuple[Tensor, ...]:
        """Item -> (image of a scene, background)."""
        index = (self.seed << 40) + item
        scene, background = self.scenes.scene(index).image, self.scenes.background(index)
        # Copies, because an image of a folder is the one in its cache.
        return torch.tensor(scene).permute(2, 0, 1), torch.tensor(background).permute(2, 0, 1)
