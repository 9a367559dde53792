"""Patches and what was made of them as one row of pictures."""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ...files.pictures import contact_sheet
from .parts import PatchSet

__all__ = ["boxed", "row_of"]

Pixels = npt.NDArray[np.uint8]
COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#42d4f4", "#f032e6", "#bfef45")  # of boxes, in turn
_MOST = 12  # patches that are shown


def row_of(patches: PatchSet, composite: Pixels, mask: Pixels, image: Pixels) -> Pixels:
    """The picture with its boxes if there is one, then patches, composite, mask and image: uint8 [R, W, 3]."""
    parts = [framed(patch, index) for index, patch in enumerate(patches.patches[:_MOST])]
    if patches.picture is not None and patches.boxes is not None:
        parts.insert(0, boxed(patches.picture, patches))
    grey = np.repeat(mask[..., None], 3, axis=-1)
    return contact_sheet(np.stack([*parts, composite, grey, image]), columns=len(parts) + 3)


def boxed(picture: Pixels, patches: PatchSet) -> Pixels:
    """A picture with its patches' boxes drawn in their colours."""
    drawn = Image.fromarray(picture.copy())
    pen = ImageDraw.Draw(drawn)
    assert patches.boxes is not None
    for index, (x, y, w, h) in enumerate(patches.boxes.tolist()):
        pen.rectangle((x, y, x + w - 1, y + h - 1), outline=COLOURS[index % len(COLOURS)])
    return np.asarray(drawn)


def framed(patch: Pixels, index: int) -> Pixels:
    """A patch in a frame of its box's colour."""
    drawn = Image.fromarray(patch.copy())
    side = patch.shape[0]
    ImageDraw.Draw(drawn).rectangle(
        (0, 0, side - 1, side - 1), outline=COLOURS[index % len(COLOURS)], width=max(1, side // 32)
    )
    return np.asarray(drawn)
