"""Which patches of a picture are its key patches: windows that hold whole objects, by the edges in them.

EdgeBoxes ranks windows by the contours that lie wholly inside; `edge_boxes` asks OpenCV's for them. `key_boxes` needs
no OpenCV: it scores windows by the share of edges inside that do not touch the window's border.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zellige.errors import DataError, MissingExtraError

from .boxes import Boxes, overlaps, rounded_out
from .config import KeyPatchConfig

__all__ = ["edge_boxes", "key_boxes", "narrowed", "random_boxes"]

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

_SIDES = 6  # widths, and heights, of windows from the least to the greatest
_PLACES = 64  # windows begin at multiples of a 64th of the side
_RIM = 0.125  # share of a window's side that is its border, on each side of it
_EXPONENT = 1.2  # of the perimeter, 1.5 in EdgeBoxes; 1.2 gives patches of 10 % of an image on average
_FAINT = 1e-3  # mean edge, of 1, below which a picture has none
_ASKED = 400  # windows that EdgeBoxes is asked for


def key_boxes(picture: Pixels, count: int, config: KeyPatchConfig) -> Boxes:
    """The boxes of a picture's key patches, by density of edges; the same at every call.

    score = (E(window) - E(rim)) / (2 (w + h))^1.2, where E sums the lengths of gradients, and the rim is the border of
    the window, 1/8 of its side inwards and outwards.

    Args:
        picture: uint8 [S, S, 3].
        count: of boxes.
        config: sides, area, aspect and overlap that key patches may have.
    Returns:
        int64 [count, 4], by falling score.
    Raises:
        DataError: the picture has no edge anywhere, so that no window is better than another.
    """
    edges = _edges(picture)
    if float(edges.mean()) < _FAINT:
        raise DataError("the image has no edges, so that no patch of it is a key patch; take random patches, or boxes")
    side = len(edges)
    windows = _windows(side, config)
    sums = np.zeros((side + 1, side + 1))
    sums[1:, 1:] = edges.cumsum(0).cumsum(1)
    x, y, w, h = windows.T
    rim_x, rim_y = np.rint(w * _RIM).astype(int), np.rint(h * _RIM).astype(int)

    def within(left: Boxes, top: Boxes, right: Boxes, bottom: Boxes) -> Floats:
        left, top = left.clip(0), top.clip(0)
        right, bottom = right.clip(None, side), bottom.clip(None, side)
        return np.asarray(sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left])

    inner = within(x + rim_x, y + rim_y, x + w - rim_x, y + h - rim_y)
    outer = within(x - rim_x, y - rim_y, x + w + rim_x, y + h + rim_y)
    score = (inner - 0.5 * (outer - inner)) / (2.0 * (w + h)) ** _EXPONENT
    return _best(windows, score, count, config)


def edge_boxes(picture: Pixels, count: int, config: KeyPatchConfig, edge_model: str | None = None) -> Boxes:
    """The boxes of a picture's key patches by EdgeBoxes of OpenCV's contrib modules; as `key_boxes`.

    Edges and their orientations are those of a model of structured edges, of which OpenCV brings none, or a plain
    gradient's. Scores depend on the edges' scale, and only their order counts here.

    Args:
        picture, count, config: as of `key_boxes`.
        edge_model: file of a model of structured edges in OpenCV's format, such as its model.yml.gz. OpenCV does not
            check what is in it, so it must come from someone who is trusted.
    Raises:
        MissingExtraError: opencv-contrib is not installed. DataError: the picture has no edge, or OpenCV cannot read
            the file.
    Source: Zitnick & Dollar, "Edge Boxes", ECCV 2014; Dollar & Zitnick, "Structured Forests", ICCV 2013.
    """
    try:
        import cv2
    except ImportError:
        purpose = "choosing patches by EdgeBoxes"
        raise MissingExtraError("opencv-contrib-python-headless", purpose, "key-patch") from None
    edges, angles = _gradient(picture) if edge_model is None else structured_edges(picture, edge_model)
    if float(edges.mean()) < _FAINT:
        raise DataError("the image has no edges, so that no patch of it is a key patch; take random patches, or boxes")
    asked = cv2.ximgproc.createEdgeBoxes()  # a new one a picture: asked again, one answers otherwise
    asked.setMaxBoxes(_ASKED * 10)
    asked.setMinBoxArea((config.least_side * len(edges)) ** 2)
    found, _ = asked.getBoundingBoxes((edges / edges.max()).astype(np.float32), angles.astype(np.float32))
    boxes = rounded_out(np.asarray(found, np.float64).reshape(-1, 4), edges.shape)
    allowed = boxes[_allowed(boxes, len(edges), config)]
    chosen = _best(allowed, np.arange(len(allowed), 0.0, -1.0), count, config) if len(allowed) else allowed
    if len(chosen) < count:  # few proposals are as small as key patches
        rest = key_boxes(picture, count + len(chosen), config)
        chosen = _best(np.concatenate([chosen, rest]), np.arange(0.0, -len(chosen) - len(rest), -1.0), count, config)
    return chosen


def random_boxes(random: np.random.Generator, count: int, config: KeyPatchConfig) -> Boxes:
    """Boxes at random places, of the sizes that key patches may have: int64 [count, 4]."""
    sizes = _sizes(config.resolution, config)
    w, h = sizes[random.integers(len(sizes), size=count)].T
    x, y = (np.floor(random.random(count) * (config.resolution - side + 1)).astype(np.int64) for side in (w, h))
    return np.stack([x, y, w, h], axis=1)


def narrowed(config: KeyPatchConfig, area: float | None) -> KeyPatchConfig:
    """The rules of key patches with another greatest area; a smaller one shrinks their sides."""
    if area is None:
        return config
    scale = min(1.0, (area / config.most_area) ** 0.5)
    sides = {"most_side": config.most_side * scale, "least_side": config.least_side * scale}
    return config.model_copy(update={"most_area": area} | sides)


def structured_edges(picture: Pixels, edge_model: str) -> tuple[Floats, Floats]:
    """Edges in [0, 1], thinned, and their angles, by a model of structured edges: [S, S] each."""
    detector = _detector(edge_model)
    edges = detector.detectEdges(picture.astype(np.float32) / 255)
    angles = detector.computeOrientation(edges)
    thin = detector.edgesNms(edges, angles)
    return np.asarray(thin, np.float64), np.asarray(angles, np.float64)


@cache
def _detector(edge_model: str) -> Any:
    import cv2

    if not Path(edge_model).is_file():
        raise DataError(f"{edge_model} is no file; name a model of structured edges, such as OpenCV's model.yml.gz")
    try:
        return cv2.ximgproc.createStructuredEdgeDetection(edge_model)
    except cv2.error as error:
        raise DataError(f"{edge_model} is no model of structured edges that OpenCV can read: {error.err}") from None


def _edges(picture: Pixels) -> Floats:
    return _gradient(picture)[0]


def _gradient(picture: Pixels) -> tuple[Floats, Floats]:
    """Lengths in [0, 1] and angles of Sobel's gradient, the strongest of three channels: [S, S] each."""
    padded = np.pad(picture.astype(np.float64) / 255, ((1, 1), (1, 1), (0, 0)), mode="edge")
    soft_y = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    across = soft_y[:, 2:] - soft_y[:, :-2]
    soft_x = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    down = soft_x[2:] - soft_x[:-2]
    lengths = np.hypot(across, down) / np.sqrt(32)
    strongest = lengths.argmax(2)[..., None]
    dx, dy = (np.take_along_axis(t, strongest, 2)[..., 0] for t in (across, down))
    # The orientation of the edge, which is across the gradient, in [0, pi).
    return lengths.max(2), np.mod(np.arctan2(dy, dx) + np.pi / 2, np.pi)


@cache
def _sizes(side: int, config: KeyPatchConfig) -> Boxes:
    """Widths and heights of these windows, each pair once: [M, 2]."""
    return np.unique(_windows(side, config)[:, 2:], axis=0)


@cache
def _windows(side: int, config: KeyPatchConfig) -> Boxes:
    """All windows that key patches may have, on a grid: [M, 4]."""
    least, most = (int(np.ceil(config.least_side * side)), int(np.floor(config.most_side * side)))
    sides = np.unique(np.linspace(least, most, _SIDES).round().astype(int))
    step = max(1, side // _PLACES)
    boxes = [
        np.stack(np.meshgrid(np.arange(0, side - w + 1, step), np.arange(0, side - h + 1, step), [w], [h]), -1)
        for w in sides for h in sides
    ]  # fmt: skip
    every = np.concatenate([grid.reshape(-1, 4) for grid in boxes]).astype(np.int64)
    return every[_allowed(every, side, config)]


def _allowed(boxes: Boxes, side: int, config: KeyPatchConfig) -> npt.NDArray[np.bool_]:
    w, h = boxes[:, 2], boxes[:, 3]
    longer, shorter = np.maximum(w, h), np.minimum(w, h)
    small = (longer <= config.most_side * side) & (w * h <= config.most_area * side * side)
    return np.asarray(small & (shorter >= config.least_side * side) & (longer <= config.most_aspect * shorter))


def _best(boxes: Boxes, score: Floats, count: int, config: KeyPatchConfig) -> Boxes:
    """The best boxes of which no two overlap by more than they may; fewer if there are no more."""
    left = np.argsort(-score, kind="stable")
    chosen: list[int] = []
    while len(left) and len(chosen) < count:
        chosen.append(int(left[0]))
        left = left[overlaps(boxes[left[:1]], boxes[left])[0] <= config.most_overlap]
    return boxes[chosen]
