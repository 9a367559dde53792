"""Pictures of an object on a background, and clean backgrounds beside them."""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from zellige.errors import DataError

from .folder import ImageFolder
from .listing import Listing, Split

__all__ = ["FolderScenes", "LabelledImage", "Scenes"]

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class LabelledImage:
    """One picture of an object on a background, with its labels as far as they are known.

    Args:
        image: uint8 [H, W, 3].
        mask: uint8 [H, W], the object's share of each pixel, 255 for all of it; None if it is not known.
        child, parent: fine and coarse class, indices into the `children` and `parents` of its set; None likewise.
        ground: the picture as it would be without the object, uint8 [H, W, 3]; None likewise.
    """

    image: Bytes
    mask: Bytes | None = None
    child: int | None = None
    parent: int | None = None
    ground: Bytes | None = None


class Scenes(Protocol):
    """A source of scenes and backgrounds of one resolution; an `index` is any integer from 0 on and fixes both."""

    resolution: tuple[int, int]
    licence: str
    children: tuple[str, ...]
    parents: tuple[str, ...]
    parent_of: tuple[int, ...]

    @property
    def listings(self) -> Mapping[str, Listing]:
        """The files behind the scenes, by part; none if they are computed."""
        ...

    def on(self, split: Split) -> "Scenes":
        """Return the scenes of a split under the same seed."""
        ...

    def scene(self, index: int) -> LabelledImage:
        """Return the scene `index`."""
        ...

    def background(self, index: int) -> Bytes:
        """Return a picture without an object, uint8 [H, W, 3], of another place than the scene of the same index."""
        ...


class FolderScenes:
    """Images below `objects/` as scenes without masks or classes, and images below `backgrounds/` as backgrounds.

    For each index a picture is drawn at random, and may be mirrored. `ImageFolder` says how images are read, fitted to
    the resolution and held out.

    Args:
        directory: holds the folders `objects` and `backgrounds`.
        resolution: height and width in pixels.
        split: "train" or "held-out".
        seed: together with the index it fixes the draw.
    Raises:
        DataError: one of the two folders is missing.
        EmptyDataError: one of them holds no readable image.
    """

    licence = "the user's"
    children: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    parent_of: tuple[int, ...] = ()

    def __init__(self, directory: Path, resolution: tuple[int, int], split: Split = "train", seed: int = 0) -> None:
        for name in ("objects", "backgrounds"):
            if not (directory / name).is_dir():
                raise DataError(
                    f"{directory} has no folder {name}; put pictures of objects into {directory / 'objects'} and "
                    f"pictures without objects into {directory / 'backgrounds'}, or give a data set's name "
                    "(emoji, emoji-unseen)"
                )
        self.resolution, self.seed = resolution, seed
        self._objects = ImageFolder(directory / "objects", resolution, split)
        self._backgrounds = ImageFolder(directory / "backgrounds", resolution, split)

    @property
    def listings(self) -> dict[str, Listing]:
        """The images of both folders."""
        return {"objects": self._objects.listing, "backgrounds": self._backgrounds.listing}

    def on(self, split: Split) -> "FolderScenes":
        """Return a split of both folders, without reading them again."""
        other = copy(self)
        other._objects, other._backgrounds = self._objects.on(split), self._backgrounds.on(split)
        return other

    def scene(self, index: int) -> LabelledImage:
        """Return the scene `index`, an image of `objects/`."""
        return LabelledImage(self._draw(self._objects, index, 1))

    def background(self, index: int) -> Bytes:
        """Return an image of `backgrounds/`, uint8 [H, W, 3]."""
        return self._draw(self._backgrounds, index, 2)

    def _draw(self, folder: ImageFolder, index: int, kind: int) -> Bytes:
        random = np.random.default_rng((self.seed, index, kind))
        image = folder.image(int(random.integers(len(folder))))
        return np.ascontiguousarray(image[:, ::-1]) if random.random() < 0.5 else image
