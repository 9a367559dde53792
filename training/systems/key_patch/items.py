"""What key patches are learnt from, item by item: an image, another one, boxes of patches, and the patches."""

import hashlib
import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from zellige.errors import DataError

from ....engine.systems.key_patch.boxes import Boxes, cut_patches, flipped
from ....engine.systems.key_patch.config import KeyPatchConfig
from ....engine.systems.key_patch.selection import edge_boxes, key_boxes, random_boxes
from ...data.sources import Pictures

if TYPE_CHECKING:
    from .recipe import KeyPatchRecipe

__all__ = ["KeyPatchItems", "Selection", "boxes_of", "jittered"]

Pixels = npt.NDArray[np.uint8]
Selection = Literal["edges", "edgeboxes", "random"]

_OTHERS = 2**38  # items from which other images are taken, far beyond a run's own
_LEAST = 4  # pixels of a side of a box that moved
_KEPT = 200_000  # pictures whose boxes are remembered, some 100 bytes each


def boxes_of(
    picture: Pixels, selection: Selection, count: int, config: KeyPatchConfig, random: np.random.Generator
) -> Boxes:
    """Boxes of patches in a picture: int64 [count, 4]; at random places if it has no edges, or too few key patches."""
    if selection == "random":
        return random_boxes(random, count, config)
    try:
        found = (key_boxes if selection == "edges" else edge_boxes)(picture, count, config)
    except DataError:
        return random_boxes(random, count, config)
    return np.concatenate([found, random_boxes(random, count - len(found), config)])


def jittered(boxes: Boxes, most: float, random: np.random.Generator, side: int) -> Boxes:
    """Boxes [K, 4] whose borders moved by up to a share of their sides, within a picture of that side."""
    if not most:
        return boxes
    x, y, w, h = boxes.T
    sides = np.stack([w, h, w, h], axis=1)
    borders = np.stack([x, y, x + w, y + h], axis=1) + np.rint(random.uniform(-most, most, (len(boxes), 4)) * sides)
    begin = borders[:, :2].clip(0, side - _LEAST).astype(np.int64)
    end = borders[:, 2:].clip(begin + _LEAST, side).astype(np.int64)
    return np.concatenate([begin, end - begin], axis=1)


class KeyPatchItems(Dataset[tuple[Tensor, ...]]):
    """Item i: image [3, S, S] and another, boxes [K, 4], patches [K, 3, S, S]; uint8, and int64 of the boxes.

    Half of the images are mirrored, with their boxes.

    Args:
        pictures: where the images come from.
        recipe: how patches are chosen.
        seed: 0 takes picture i; any other seed takes others, that no shorter run under 0 meets.
    """

    def __init__(self, pictures: Pictures, recipe: "KeyPatchRecipe", seed: int = 0) -> None:
        self.pictures, self.recipe, self.seed = pictures, recipe, seed
        self._found = OrderedDict[bytes, Boxes]()

    def __getitem__(self, item: int) -> tuple[Tensor, ...]:
        """Item -> (image, other image, boxes, patches)."""
        index = (self.seed << 40) + item
        random = np.random.default_rng((self.seed, item))
        picture, config = self.pictures.image(index), self.recipe.model
        boxes = self._candidates(picture, random)
        chosen = random.choice(len(boxes), config.patches, replace=self.recipe.replacement)
        boxes = jittered(boxes[chosen], self.recipe.jitter, random, config.resolution)
        picture, other = (self._turned(one, random) for one in (picture, self.pictures.image(index + _OTHERS)))
        if random.random() < 0.5:
            picture, boxes = picture[:, ::-1], flipped(boxes, picture.shape[1])
        patches = cut_patches(picture, boxes)
        return (
            torch.tensor(picture.transpose(2, 0, 1).copy()),
            torch.tensor(other.transpose(2, 0, 1).copy()),
            torch.from_numpy(boxes),
            torch.tensor(patches.transpose(0, 3, 1, 2).copy()),
        )

    def _turned(self, picture: Pixels, random: np.random.Generator) -> Pixels:
        """A picture whose colours are turned around the axis of greys, so that white and black stay."""
        if not self.recipe.hue:
            return picture
        angle = math.radians(random.uniform(-self.recipe.hue, self.recipe.hue))
        across = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
        turn = math.cos(angle) * np.eye(3) + (1 - math.cos(angle)) / 3 + math.sin(angle) * across
        return np.rint(picture @ turn.T).clip(0, 255).astype(np.uint8)

    def _candidates(self, picture: Pixels, random: np.random.Generator) -> Boxes:
        """Boxes that the item's are drawn from; those of a picture are found once."""
        recipe = self.recipe
        if recipe.selection == "random" or random.random() < recipe.random_share:
            return random_boxes(random, recipe.candidates, recipe.model)
        mark = hashlib.blake2b(picture.tobytes(), digest_size=16).digest()
        if mark not in self._found:
            # By the picture alone: an item must not depend on those before it.
            own = np.random.default_rng(list(mark))
            self._found[mark] = boxes_of(picture, recipe.selection, recipe.candidates, recipe.model, own)
            if len(self._found) > _KEPT:
                self._found.popitem(last=False)
        return self._found[mark]
