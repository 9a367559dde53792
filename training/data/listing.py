"""The pictures of a folder: it is searched, each is read once, and a mark of its content decides its split."""

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader, BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from zellige.errors import DataError

from ...engine.files.pictures import read_picture

__all__ = ["NO_FILES", "SUFFIXES", "Listing", "Split", "is_held_out", "list_pictures", "mark_of"]

Split = Literal["train", "held-out"]
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_ONE_IN = 10


@dataclass(frozen=True)
class Listing:
    """The pictures of a folder.

    Attributes:
        marks: for each picture that can be read a number made from its content, in the order of their paths.
        left_out: for each other file, or link to a folder, the reason why it is left out.
    """

    marks: Mapping[Path, int]
    left_out: Mapping[Path, str]

    @property
    def digest(self) -> str:
        """Return a hash of all contents, which does not depend on the files' names."""
        return hashlib.blake2b(np.sort(self.content()).astype("<i8").tobytes(), digest_size=16).hexdigest()

    def content(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return all marks, int64 [N]."""
        return np.array(list(self.marks.values()), np.int64)

    def on(self, split: Split) -> list[Path]:
        """Return the pictures of one split, or all of them if it has none."""
        side = [path for path, mark in self.marks.items() if is_held_out(mark) == (split == "held-out")]
        return side or list(self.marks)

    def counts(self) -> dict[str, Any]:
        """Return numbers of pictures for reports, and the digest."""
        held_out = sum(map(is_held_out, self.marks.values()))
        return {
            "found": len(self.marks) + len(self.left_out),
            "trained_on": len(self.on("train")),
            "held_out": held_out,
            "left_out": len(self.left_out),
            "digest": self.digest,
        }

    def changes(self, marks: list[int]) -> tuple[int, int]:
        """Return how many pictures were added since a folder had these marks, and how many are gone."""
        now, then = Counter(self.marks.values()), Counter(marks)
        return (now - then).total(), (then - now).total()


NO_FILES: Mapping[str, Listing] = MappingProxyType({})  # the listings of computed data


def mark_of(file: BufferedReader | BytesIO) -> int:
    """Make a number from the content of a file, from -2^63 to 2^63 - 1."""
    digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).digest()
    return int.from_bytes(digest, "big", signed=True)


def is_held_out(mark: int) -> bool:
    """Tell from a picture's content alone whether it is held out; one in ten is.

    So a picture that is added or removed moves no other to the other split. A renamed one stays where it was, and a
    copy is in the split of its original.
    """
    return mark % _ONE_IN == 0


def list_pictures(directory: Path) -> Listing:
    """Find and read the pictures below a folder. Links are followed, and no folder is searched twice."""
    marks: dict[Path, int] = {}
    left_out: dict[Path, str] = {}
    for path in sorted(_candidates(directory, left_out)):
        try:
            # Opening a pipe would block.
            if not stat.S_ISREG(path.stat().st_mode):
                left_out[path] = "is no regular file"
                continue
            read_picture(path)  # now, because a damaged picture would end the run hours later
            with path.open("rb") as file:
                marks[path] = mark_of(file)
        except FileNotFoundError:
            left_out[path] = "is a link that leads nowhere"
        except OSError as error:
            left_out[path] = f"cannot be read: {error.strerror}"
        except DataError as error:
            left_out[path] = str(error).removeprefix(f"{path} ").split("; ")[0]  # without the advice
    return Listing(marks, left_out)


def _candidates(directory: Path, left_out: dict[Path, str]) -> Iterator[Path]:
    """Yield files whose suffixes are those of pictures. Links to folders come after the folders themselves."""
    seen: set[tuple[int, int]] = set()
    folders, links = [directory], list[Path]()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                left_out[folder] = "leads to a folder that is searched already"
                continue
            seen.add((status.st_dev, status.st_ino))
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            left_out[folder] = f"cannot be searched: {error.strerror}"
            continue
        for entry in entries:
            path = folder / entry.name
            if os.path.isdir(path):
                (links if entry.is_symlink() else folders).append(path)
            elif path.suffix.lower() in SUFFIXES:
                yield path
