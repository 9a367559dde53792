"""Faces and people of the emoji font, or all of its pictures: on white, at one scale and place.

They come from the packages that `emoji` reads too. People come in five skin tones and up to three genders; all variants
of one emoji are on one side, so that no held-out face was trained on in another tone.
"""

import hashlib
import re
from collections.abc import Iterator
from copy import copy
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, features

from .emoji import _CELL, _EM, _FONT, _NAMES, _installed
from .listing import NO_FILES, Split

__all__ = ["EmojiFaces"]

Bytes = npt.NDArray[np.uint8]

_SUBGROUPS = (
    *("face-smiling", "face-affection", "face-tongue", "face-hand", "face-neutral-skeptical", "face-sleepy"),
    *("face-unwell", "face-hat", "face-glasses", "face-concerned", "face-negative", "face-costume"),
    *("cat-face", "monkey-face", "person", "person-gesture", "person-role", "person-fantasy"),
)
# With everything: pictures of things, and no signs.
_GROUPS = (
    *("Smileys & Emotion", "People & Body", "Animals & Nature", "Food & Drink", "Travel & Places", "Activities"),
    "Objects",
)
_LINE = re.compile(r"(?P<codes>[0-9A-F ]+); fully-qualified +# \S+ E[0-9.]+ (?P<name>.+)")
_VARIANT = re.compile(r"^(man|woman|person|men|women|people) |: .*")
_ONE_IN = 10  # names that are held out


class EmojiFaces:
    """Faces and people among the emoji, or all emoji but symbols and flags, on white.

    Args:
        resolution: height and width in pixels; the emoji's cell is fitted into it.
        split: "held-out" is one name in ten, by the name alone; "train" all others.
        seed: together with the index it fixes the picture.
        everything: all emoji but symbols and flags; a name is held out here if it is held out of the faces.
    Attributes:
        names: of the emoji on this side.
    Raises:
        DataError: font or names are not installed.
    """

    licence = "Noto Color Emoji, SIL Open Font License 1.1"
    listings = NO_FILES
    cyclic = (False, False)

    def __init__(
        self, resolution: tuple[int, int], split: Split = "train", seed: int = 0, *, everything: bool = False
    ) -> None:
        self.resolution, self.seed, self.everything = resolution, seed, everything
        self._font = ImageFont.truetype(_installed(_FONT, "fonts-noto-color-emoji"), _EM)
        self._known = [face for face in _faces(everything) if _is_drawn(self._font, face[1])]
        self._take(split)

    def _take(self, split: Split) -> None:
        side = [face for face in self._known if _is_held_out(face[0]) == (split == "held-out")]
        self.names, self._texts, self._kinds = zip(*side, strict=True)
        self._picture = lru_cache(maxsize=len(side))(self._draw)

    def __getstate__(self) -> dict[str, object]:
        # Processes that load data draw for themselves: neither fonts nor caches travel.
        return {name: getattr(self, name) for name in ("resolution", "seed", "everything", "names")}

    def __setstate__(self, state: dict[str, object]) -> None:
        names = state["names"]
        assert isinstance(names, tuple)
        split: Split = "held-out" if names and _is_held_out(names[0]) else "train"
        self.__init__(state["resolution"], split, state["seed"], everything=state["everything"])  # type: ignore[misc]

    def on(self, split: Split) -> "EmojiFaces":
        """The emoji of the other side, under the same seed."""
        other = copy(self)
        other._take(split)
        return other

    def number(self, index: int) -> int:
        """Which of the side's emoji picture `index` is."""
        return int(np.random.default_rng((self.seed, index)).integers(len(self.names)))

    def kind(self, index: int) -> int:
        """1 if picture `index` is of a person, 0 if it is of a face alone or of a thing."""
        return int(self._kinds[self.number(index)])

    def image(self, index: int) -> Bytes:
        """Picture `index`, uint8 [H, W, 3]."""
        return self.emoji(self.number(index))

    def emoji(self, number: int) -> Bytes:
        """One of the side's emoji, uint8 [H, W, 3]."""
        return np.asarray(self._picture(number))

    def crop(self, index: int, top: float, left: float, size: tuple[int, int]) -> Bytes:
        """The region at (top, left) in pixels, rounded to whole ones: uint8 [*size, 3]."""
        y, x = round(top), round(left)
        return self.image(index)[y : y + size[0], x : x + size[1]].copy()

    def _draw(self, number: int) -> Bytes:
        side, (height, width) = max(_CELL), self.resolution
        cell = Image.new("RGBA", (side, side), "white")
        place = ((side - _CELL[0]) // 2, (side - _CELL[1]) // 2)
        drawn = Image.new("RGBA", (side, side))
        ImageDraw.Draw(drawn).text(place, self._texts[number], font=self._font, embedded_color=True)
        whole = Image.alpha_composite(cell, drawn).convert("RGB")
        fitted = min(height, width)
        small = whole.resize((fitted, fitted), Image.Resampling.HAMMING)
        frame = Image.new("RGB", (width, height), "white")
        frame.paste(small, ((width - fitted) // 2, (height - fitted) // 2))
        return np.asarray(frame)


def _faces(everything: bool) -> Iterator[tuple[str, str, bool]]:
    """Name, text and whether it is a person; texts of several code points only if Pillow can shape them."""
    group, subgroup, shapes = "", "", features.check("raqm")
    for line in _installed(_NAMES, "unicode-data").read_text(encoding="utf-8").splitlines():
        if line.startswith("# group: "):
            group = line.removeprefix("# group: ").strip()
        elif line.startswith("# subgroup: "):
            subgroup = line.removeprefix("# subgroup: ").strip()
        elif (group in _GROUPS if everything else subgroup in _SUBGROUPS) and (found := _LINE.match(line)):
            text = "".join(chr(int(code, 16)) for code in found["codes"].split())
            if shapes or len(text.removesuffix("\ufe0f")) == 1:
                yield found["name"].strip(), text if shapes else text[0], subgroup.startswith("person")


def _is_drawn(font: ImageFont.FreeTypeFont, text: str) -> bool:
    """Whether the font has one picture for a text; else a sequence comes as several."""
    left, _, right, _ = font.getbbox(text)
    return 0 < right - left <= _CELL[0]


def _is_held_out(name: str) -> bool:
    """By the name without gender and skin tone."""
    base = _VARIANT.sub("", name)
    return hashlib.blake2b(base.encode(), digest_size=8).digest()[0] % _ONE_IN == 0
