"""Any directory of images as training pictures."""

import logging
from collections import OrderedDict
from copy import copy
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from zellige.errors import DataError, EmptyDataError

from ...engine.files.pictures import read_picture
from .listing import SUFFIXES, Listing, Split, is_held_out, list_pictures

__all__ = ["ImageFolder"]

Bytes = npt.NDArray[np.uint8]
logger = logging.getLogger(__name__)

_CACHE_BYTES = 512 * 2**20
_NAMED = 5  # files at most that a message names


class ImageFolder:
    """The images below a directory, in the order of their paths, resized to one resolution.

    About one image in ten is held out for evaluation, and its content decides whether it is (`is_held_out`). If a split
    would have no image, it has all. A picture of another shape is scaled to cover the resolution and cropped at its
    centre. A cyclic picture is scaled to it exactly, because cropping would open it. Orientation tags are honoured;
    transparency is dropped. Files that tasks would refuse to read are left out.

    Args:
        directory: searched recursively; links are followed.
        resolution: height and width in pixels.
        split: "train" or "held-out".
        cyclic: which axes (vertical, horizontal) close on themselves in these images.
    Attributes:
        listing: the images found, and the reasons why files are left out; a log line reports it once.
        paths: the images of this split.
    Raises:
        DataError: the path is no directory.
        EmptyDataError: the directory holds no readable image.
    """

    licence = "the user's"

    def __init__(
        self,
        directory: Path,
        resolution: tuple[int, int],
        split: Split = "train",
        cyclic: tuple[bool, bool] = (False, False),
    ) -> None:
        if not directory.is_dir():
            raise DataError(
                f"{directory} is not a folder; give a folder of images or a data set's name (earth, earth-land)"
            )
        self.directory, self.resolution, self.cyclic = directory, resolution, cyclic
        self.listing = list_pictures(directory)
        if not self.listing.marks:
            reasons = f" ({self._left_out()})" if self.listing.left_out else ""
            raise EmptyDataError(
                f"{directory} holds no readable image, of {len(self.listing.left_out)} candidates{reasons}; "
                f"put files ending in {', '.join(SUFFIXES)} there"
            )
        self._say()
        self._take(split)

    @property
    def listings(self) -> dict[str, Listing]:
        """The listing of the folder, by the name of its only part."""
        return {"pictures": self.listing}

    def on(self, split: Split) -> "ImageFolder":
        """Return a split of the same folder, without reading it again."""
        other = copy(self)
        other._take(split)
        return other

    def __len__(self) -> int:
        return len(self.paths)

    def crop(self, index: int, top: float, left: float, size: tuple[int, int]) -> Bytes:
        """Return the region of picture `index` at (round(top), round(left)), uint8 [*size, 3]; cyclic axes wrap."""
        rows = (round(top) + np.arange(size[0])) % self.resolution[0]
        columns = (round(left) + np.arange(size[1])) % self.resolution[1]
        return self.image(index)[rows[:, None], columns]

    def image(self, index: int) -> Bytes:
        """Return picture `index` modulo the number of pictures, uint8 [H, W, 3]."""
        index %= len(self.paths)
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        picture = self._load(self.paths[index])
        self._cache[index] = picture
        while len(self._cache) * picture.nbytes > _CACHE_BYTES:
            self._cache.popitem(last=False)
        return picture

    def _load(self, path: Path) -> Bytes:
        height, width = self.resolution
        picture = read_picture(path)
        if any(self.cyclic):
            return np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS))
        return np.asarray(ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS))

    def _take(self, split: Split) -> None:
        self.paths = self.listing.on(split)
        self._cache: OrderedDict[int, Bytes] = OrderedDict()
        if split == "held-out" and not any(map(is_held_out, self.listing.marks.values())):
            logger.warning(
                "no picture of %s is held out, so those of training are used instead; one in ten is held out by its "
                "content, so add pictures",
                self.directory,
            )

    def _say(self) -> None:
        counts = self.listing.counts()
        level = logging.WARNING if self.listing.left_out else logging.INFO
        logger.log(
            level, "%s: %d pictures found, %d to train on, %d held out, %d left out%s", self.directory, counts["found"],
            counts["trained_on"], counts["held_out"], counts["left_out"],
            f": {self._left_out()}" if self.listing.left_out else "",
        )  # fmt: skip

    def _left_out(self) -> str:
        reasons = list(self.listing.left_out.items())
        named = "; ".join(f"{path.relative_to(self.directory)} {reason}" for path, reason in reasons[:_NAMED])
        return named + (f"; and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else "")
