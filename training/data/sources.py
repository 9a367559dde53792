"""Opens pictures or scenes by a name on the command line."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from zellige.errors import DataError

from ...engine.panorama.lattice import Topology
from .earth import EarthCrops, EarthPanoramas
from .emoji import EMOJI, UNSEEN_EMOJI, EmojiScenes
from .emoji_faces import EmojiFaces
from .folder import ImageFolder
from .listing import Listing, Split
from .scenes import FolderScenes, Scenes

__all__ = ["DATA_SETS", "Pictures", "located", "open_pictures", "open_scenes"]

DATA_SETS = ("earth", "earth-land", "emoji", "emoji-all", "emoji-faces", "emoji-unseen")


class Pictures(Protocol):
    """A source of pictures of one resolution; an `index` is any integer from 0 on and fixes the picture."""

    resolution: tuple[int, int]
    cyclic: tuple[bool, bool]
    licence: str

    @property
    def listings(self) -> Mapping[str, Listing]:
        """The files behind the pictures, by part; none if they are computed."""
        ...

    def on(self, split: Split) -> "Pictures":
        """Return the pictures of a split under the same seed."""
        ...

    def crop(self, index: int, top: float, left: float, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """Return the region at (top, left) in pixels, uint8 [*size, 3]."""
        ...

    def image(self, index: int) -> npt.NDArray[np.uint8]:
        """Return the whole picture, uint8 [H, W, 3]."""
        ...


def located(name: str) -> str:
    """Return the name of a data set as it is, or the absolute path of a folder, which is valid from anywhere."""
    return name if name in DATA_SETS else os.path.abspath(name)


def open_pictures(
    name: str, resolution: tuple[int, int], topology: Topology, split: Split = "train", seed: int = 0
) -> Pictures:
    """Open a data set by name, or a folder of images by path.

    Args:
        name: "earth" (great-circle panoramas for a cylinder, planar crops otherwise), "earth-land" (planar crops with
            three quarters of land or more), "emoji-faces" (faces and people on white), "emoji-all" (all emoji but
            symbols and flags on white) or a directory; write ./earth for a directory called earth.
        resolution: height and width of the pictures.
        topology: of the model; for a cylinder a folder's images count as cyclic horizontally.
        split: "train" or "held-out".
        seed: fixes which pictures an index means.
    Raises:
        DataError: there is no data set or folder of this name.
        EmptyDataError: the folder holds no readable image.
    """
    if name == "earth":
        if topology == "cylinder":
            return EarthPanoramas(resolution, split, seed)
        return EarthCrops(resolution, split, seed)
    if name == "earth-land":
        if topology == "cylinder":
            raise DataError("no great circle of the Earth stays on land; a cylinder takes --data earth")
        return EarthCrops(resolution, split, seed, land=0.75)
    if name in ("emoji-faces", "emoji-all"):
        return EmojiFaces(resolution, split, seed, everything=name == "emoji-all")
    return ImageFolder(Path(name), resolution, split, cyclic=(False, topology == "cylinder"))


def open_scenes(name: str, resolution: tuple[int, int], split: Split = "train", seed: int = 0) -> Scenes:
    """Open objects on backgrounds by the name of a data set, or a folder of images by path.

    Args:
        name: "emoji", "emoji-unseen" (others of the same subgroups, to evaluate models that learnt from "emoji") or a
            directory that holds the folders objects and backgrounds; write ./emoji for a directory called emoji.
        resolution: height and width of the pictures.
        split: "train" or "held-out"; it decides the places of emoji scenes' backgrounds.
        seed: fixes which scenes and backgrounds an index means.
    Raises:
        DataError: there is no data set or folder of this name, or the emoji are not installed.
        EmptyDataError: a folder holds no readable image.
    """
    if name in ("emoji", "emoji-unseen"):
        return EmojiScenes(resolution, split, seed, emoji=EMOJI if name == "emoji" else UNSEEN_EMOJI)
    return FolderScenes(Path(name), resolution, split, seed)
