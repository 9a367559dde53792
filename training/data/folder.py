"""Any directory of images as training pictures."""

import logging
from collections import OrderedDict
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from zellige.errors import DataError, EmptyDataError

from .earth import Split

__all__ = ["ImageFolder"]

Bytes = npt.NDArray[np.uint8]
logger = logging.getLogger(__name__)

_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_HELD_OUT_EVERY = 10
_CACHE_BYTES = 512 * 2**20


class ImageFolder:
    """The images below a directory, in the order of their paths, resized to one resolution.

    Every tenth readable image is held out for evaluation, provided there are at least ten. A picture whose shape
    differs is scaled to cover the resolution and cropped at its centre; a cyclic picture is scaled to it exactly, since
    cropping would break its closure. Orientation tags are honoured; transparency is dropped.

    Args:
        directory: searched recursively.
        resolution: height and width in pixels.
        split: "train" or "held-out".
        cyclic: which axes (vertical, horizontal) close on themselves in these images.
    Attributes:
        unreadable: the files that look like images but cannot be read, each with its reason; named once in a warning.
    Raises:
        DataError: the path is no directory.
        EmptyDataError: it holds no readable image.
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
        self.unreadable: dict[Path, str] = {}
        candidates = sorted(p for p in directory.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())
        readable = [path for path in candidates if self._opens(path)]
        if self.unreadable:
            names = ", ".join(str(path.relative_to(directory)) for path in list(self.unreadable)[:5])
            more = f" and {len(self.unreadable) - 5} more" if len(self.unreadable) > 5 else ""
            logger.warning("%d unreadable files in %s are left out: %s%s", len(self.unreadable), directory, names, more)
        if not readable:
            raise EmptyDataError(
                f"{directory} holds no readable image ({len(candidates)} candidates); "
                f"put files ending in {', '.join(sorted(_SUFFIXES))} there"
            )
        held_out = readable[::_HELD_OUT_EVERY] if len(readable) >= _HELD_OUT_EVERY else []
        kept = set(held_out)
        self.paths = (held_out or readable) if split == "held-out" else [path for path in readable if path not in kept]
        self._cache: OrderedDict[int, Bytes] = OrderedDict()

    def __len__(self) -> int:
        return len(self.paths)

    def crop(self, index: int, top: float, left: float, size: tuple[int, int]) -> Bytes:
        """The region of picture `index` at (round(top), round(left)), uint8 [*size, 3]; cyclic axes wrap around."""
        rows = (round(top) + np.arange(size[0])) % self.resolution[0]
        columns = (round(left) + np.arange(size[1])) % self.resolution[1]
        return self.image(index)[rows[:, None], columns]

    def image(self, index: int) -> Bytes:
        """Picture `index` modulo the number of pictures, uint8 [H, W, 3]."""
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
        with Image.open(path) as file:
            picture: Image.Image = ImageOps.exif_transpose(file)
            if picture.mode.startswith("I;16"):
                # Pillow converts greys of 16 bits by clipping them at 255.
                picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
            picture = picture.convert("RGB")
            if any(self.cyclic):
                picture = picture.resize((width, height), Image.Resampling.LANCZOS)
            else:
                picture = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
            return np.asarray(picture)

    def _opens(self, path: Path) -> bool:
        try:
            with Image.open(path) as picture:
                # The header alone does not reveal a truncated file; decoding once here keeps the training loop free of
                # it.
                picture.draft("RGB", (64, 64))
                picture.load()
        except Exception as error:  # Pillow raises many kinds, by format and by fault
            self.unreadable[path] = f"{type(error).__name__}: {error}"
            return False
        return True
