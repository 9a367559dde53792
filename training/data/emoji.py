"""Emoji on terrain: scenes whose mask and whose two levels of classes are known exactly.

The pictures are drawn with the font Noto Color Emoji (SIL Open Font License). Names and classes come from Unicode's
emoji-test.txt. Both files come with Debian's packages `fonts-noto-color-emoji` and `unicode-data`, and are read where
these put them, or from the folder that ZELLIGE_EMOJI names.
"""

import math
import os
import re
from collections.abc import Iterator, Sequence
from copy import copy
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from zellige.errors import DataError

from .earth import LICENCE, EarthCrops
from .listing import NO_FILES, Split
from .scenes import LabelledImage

__all__ = ["EMOJI", "UNSEEN_EMOJI", "EmojiScenes"]

Bytes = npt.NDArray[np.uint8]

# Seven subgroups of five. Within a subgroup the silhouettes are alike and the colours differ; between subgroups the
# silhouettes differ. So shape (parent) and style (child) can be learnt apart. Parents have equal numbers of children,
# which are in the parents' order, so that floor(child * parents / children) is the true parent of a child.
EMOJI = (
    *("face with medical mask", "nauseated face", "hot face", "cold face", "exploding head"),
    *("red heart", "yellow heart", "green heart", "blue heart", "purple heart"),
    *("monkey face", "fox", "pig face", "koala", "panda"),
    *("baby chick", "bird", "penguin", "flamingo", "parrot"),
    *("cherry blossom", "rosette", "rose", "hibiscus", "sunflower"),
    *("grapes", "tangerine", "lemon", "red apple", "green apple"),
    *("ambulance", "taxi", "automobile", "sport utility vehicle", "tractor"),
)
# Two more emoji of each subgroup, which no training sees.
UNSEEN_EMOJI = (
    *("face with head-bandage", "sneezing face"),
    *("orange heart", "brown heart"),
    *("cat face", "bear"),
    *("duck", "owl"),
    *("blossom", "tulip"),
    *("peach", "pear"),
    *("fire engine", "police car"),
)

_FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
_NAMES = Path("/usr/share/unicode/emoji/emoji-test.txt")
_FOLDER = "ZELLIGE_EMOJI"
# The font holds bitmaps of one size, so FreeType can give them at 109 pixels an em only.
_EM, _CELL = 109, (136, 128)
_VARIATION = "\ufe0f"  # asks for the coloured form, which is this font's only one
_LINE = re.compile(r"(?P<codes>[0-9A-F ]+); fully-qualified +# \S+ E[0-9.]+ (?P<name>.+)")

_SCALES = (0.5, 0.9)
_HUE = math.radians(8)  # hearts differ in colour alone, and their hues are 41 degrees apart or more
# Length of ground along the frame's longer side: 0.2 radians, 1270 km, 172 pixels of the map.
_GROUND = 0.2
_LAND = 0.75
# Ice sheets are left out, because with them 12 of 100 frames are only white.
_LATITUDES = (-60.0, 65.0)


class EmojiScenes:
    """Emoji on random crops of the Earth's land, with exact masks and classes.

    image = rint(ground (1 - a) + emoji a), where a = mask / 255 is the antialiased alpha of the emoji. The emoji is
    drawn uniformly from the list. Its hue is turned up to 8 degrees, half of the scenes mirror it, its longer side is
    0.5 to 0.9 of the frame's shorter one, and it lies anywhere inside. The child class is the emoji, the parent class
    its Unicode subgroup. The scene `index` is the same at every resolution, but for resampling.

    Args:
        resolution: height and width in pixels; at more than 128 the emoji are enlarged.
        split: of the backgrounds: "held-out" takes places in one octant of the globe, "train" all others.
        seed: together with the index it fixes scene and background.
        emoji: names from emoji-test.txt, subgroup by subgroup. EMOJI is for training; UNSEEN_EMOJI has others of the
            same subgroups.
    Attributes:
        children: the names, indexed by `LabelledImage.child`.
        parents: their subgroups in the order of appearance, indexed by `LabelledImage.parent`.
        parent_of: the parent's index for each child.
    Raises:
        DataError: the font or the file of names is not installed, or lacks an emoji of the list.
        MissingExtraError: the package with the map is not installed.
    """

    licence = f"Noto Color Emoji, SIL Open Font License 1.1; {LICENCE}"
    listings = NO_FILES

    def __init__(
        self, resolution: tuple[int, int], split: Split = "train", seed: int = 0, *, emoji: Sequence[str] = EMOJI
    ) -> None:
        self.resolution, self.seed = resolution, seed
        known = dict(_known(_installed(_NAMES, "unicode-data")))
        for name in emoji:
            if name not in known:
                raise DataError(
                    f"emoji-test.txt has no emoji of one code point called {name!r}; use names as that file spells them"
                )
        font = ImageFont.truetype(_installed(_FONT, "fonts-noto-color-emoji"), _EM)
        self._cutouts = [_draw(font, name, known[name][0]) for name in emoji]
        self.children = tuple(emoji)
        self.parents = tuple(dict.fromkeys(known[name][1] for name in emoji))
        self.parent_of = tuple(self.parents.index(known[name][1]) for name in emoji)
        scale = max(resolution) / _GROUND
        self._ground = EarthCrops(resolution, split, seed, pixels_per_radian=scale, land=_LAND, latitudes=_LATITUDES)

    def on(self, split: Split) -> "EmojiScenes":
        """Return the same emoji on the grounds of a split."""
        other = copy(self)
        other._ground = self._ground.on(split)
        return other

    def scene(self, index: int) -> LabelledImage:
        """Return the scene `index`, with mask, child, parent and ground."""
        # The key has three numbers, because the ground is drawn under two.
        random = np.random.default_rng((self.seed, index, 1))
        child = int(random.integers(len(self.children)))
        placed = self._place(self._cutouts[child], random).astype(np.float32)
        alpha = placed[..., 3:] / 255
        ground = self._ground.image(2 * index)
        image = np.rint(ground * (1 - alpha) + placed[..., :3] * alpha)
        return LabelledImage(
            image.astype(np.uint8), placed[..., 3].astype(np.uint8), child, self.parent_of[child], ground
        )

    def background(self, index: int) -> Bytes:
        """Return land without an emoji, uint8 [H, W, 3], from a place that scenes show only by chance."""
        return self._ground.image(2 * index + 1)

    def _place(self, cutout: Bytes, random: np.random.Generator) -> Bytes:
        """Turn a cutout's hue, mirror, scale and place it: RGBA, uint8 [H, W, 4], transparent around it."""
        turned = cutout.copy()
        turned[..., :3] = np.clip(np.rint(cutout[..., :3] @ _hue(random.uniform(-_HUE, _HUE)).T), 0, 255)
        if random.random() < 0.5:
            turned = np.ascontiguousarray(turned[:, ::-1])
        side = random.uniform(*_SCALES) * min(self.resolution)
        size = [max(1, round(side * length / max(turned.shape[:2]))) for length in turned.shape[:2]]
        # Pillow weights colours with their alpha. Hamming's filter has no negative lobes, which would ring at the rim.
        small = np.asarray(Image.fromarray(turned).resize((size[1], size[0]), Image.Resampling.HAMMING))
        free = [whole - part for whole, part in zip(self.resolution, size, strict=True)]
        top, left = (round(random.random() * room) for room in free)
        frame = np.zeros((*self.resolution, 4), np.uint8)
        frame[top : top + size[0], left : left + size[1]] = small
        return frame


def _installed(path: Path, package: str) -> Path:
    folder = os.environ.get(_FOLDER)
    found = Path(folder) / path.name if folder else path
    if not found.is_file():
        raise DataError(
            f"the data set 'emoji' needs {path.name}, which is not in {found.parent}; install it with: apt-get install "
            f"{package}, or set {_FOLDER} to a folder that holds {_FONT.name} and {_NAMES.name}"
        )
    return found


def _known(path: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield name, code point and subgroup of every emoji of one code point; sequences would need a text shaper."""
    subgroup = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# subgroup: "):
            subgroup = line.removeprefix("# subgroup: ").strip()
        elif found := _LINE.match(line):
            codes = "".join(chr(int(code, 16)) for code in found["codes"].split()).removesuffix(_VARIATION)
            if len(codes) == 1:
                yield found["name"].strip(), (codes, subgroup)


def _draw(font: ImageFont.FreeTypeFont, name: str, code: str) -> Bytes:
    """Draw an emoji, cut to its visible part: RGBA, uint8 [h, w, 4]."""
    cell = Image.new("RGBA", _CELL)
    ImageDraw.Draw(cell).text((0, 0), code, font=font, embedded_color=True)
    visible = cell.getbbox(alpha_only=True)
    if visible is None:
        raise DataError(f"{_FONT.name} has no picture of {name!r}; a newer version may have one")
    return np.asarray(cell.crop(visible))


def _hue(angle: float) -> npt.NDArray[np.float64]:
    """Return the rotation of colours around the axis of greys, [3, 3]."""
    across = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    return np.asarray(math.cos(angle) * np.eye(3) + (1 - math.cos(angle)) / 3 + math.sin(angle) * across)
