"""From a name on the command line to pictures or scenes."""

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

DATA_SETS = ("earth", "earth-land", "emoji", "emoji-faces", "emoji-unseen")


class Pictures(Protocol):
    """A source of pictures of one resolution; `index` is any non-negative integer and fixes the picture."""

    resolution: tuple[int, int]
    cyclic: tuple[bool, bool]
    licence: str

    @property
    def listings(self) -> Mapping[str, Listing]:
        """The files behind the pictures, by part; none if they are computed."""
        ...

    def on(self, split: Split) -> "Pictures":
        """Pictures of the other side, under the same seed."""
        ...

    def crop(self, index: int, top: float, left: float, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """The region at (top, left) in pixels, uint8 [*size, 3]."""
        ...

    def image(self, index: int) -> npt.NDArray[np.uint8]:
        """The whole picture, uint8 [H, W, 3]."""
        ...


def located(name: str) -> str:
    """The name of a data set as it is, and a folder by its absolute path, under which it is found from elsewhere."""
    return name if name in DATA_SETS else os.path.abspath(name)


def open_pictures(
    name: str, resolution: tuple[int, int], topology: Topology, split: Split = "train", seed: int = 0
) -> Pictures:
    """Open a data set by name, or a folder of images by path.

    Args:
        name: "earth" (great-circle panoramas for a cylinder, planar crops otherwise), "earth-land" (planar crops at
            least three quarters of which are land), "emoji-faces" (faces and people on white) or a directory; a
            directory called earth is reached as ./earth.
        resolution: height and width of the pictures.
        topology: of the model; a folder's images are taken to be cyclic horizontally for a cylinder.
        split: "train" or "held-out".
        seed: fixes which pictures an index means.
    Raises:
        DataError: no such data set or folder.
        EmptyDataError: a folder without a readable image.
    """
    if name == "earth":
        if topology == "cylinder":
            return EarthPanoramas(resolution, split, seed)
        return EarthCrops(resolution, split, seed)
    if name == "earth-land":
        if topology == "cylinder":
            raise DataError("no great circle of the Earth stays on land; a cylinder takes --data earth")
        return EarthCrops(resolution, split, seed, land=0.75)
    if name == "emoji-faces":
        return EmojiFaces(resolution, split, seed)
    return ImageFolder(Path(name), resolution, split, cyclic=(False, topology == "cylinder"))


def open_scenes(name: str, resolution: tuple[int, int], split: Split = "train", seed: int = 0) -> Scenes:
    """Open objects on backgrounds by the name of a data set, or a folder of images by path.

    Args:
        name: "emoji", "emoji-unseen" (others of the same subgroups, to evaluate what was trained on "emoji") or a
            directory that holds the folders objects and backgrounds; one called emoji is reached as ./emoji.
        resolution: height and width of the pictures.
        split: "train" or "held-out"; of emoji scenes it names the backgrounds' places.
        seed: fixes which scenes and backgrounds an index means.
    Raises:
        DataError: no such data set or folder, or the emoji are not installed.
        EmptyDataError: a folder without a readable image.
    """
    if name in ("emoji", "emoji-unseen"):
        return EmojiScenes(resolution, split, seed, emoji=EMOJI if name == "emoji" else UNSEEN_EMOJI)
    return FolderScenes(Path(name), resolution, split, seed)
