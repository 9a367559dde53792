"""The report of `zellige evaluate` on a COCO-GAN: distance to held-out data, seams, variety."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zellige.errors import DataError

from ....engine.files.pixels import open_pixels
from ....engine.systems.coco_gan.model import CocoGan
from ...data.sources import open_pictures
from ...evaluate import said
from ...metrics.pictures import diversity, sliced_wasserstein
from ...metrics.seams import seam_ratio

__all__ = ["COUNT", "evaluate", "evaluate_file", "held_out_images"]

Pixels = npt.NDArray[np.uint8]
COUNT = 128  # pictures and images, unless --count gives another number
_REFERENCES = 32
_AXES = {"vertical": 0, "horizontal": 1}


def evaluate(model: CocoGan, data: str, count: int, seed: int) -> dict[str, Any]:
    """Compare images of a model with held-out pictures.

    Args:
        model: the model.
        data: data set or folder.
        count: number of pictures and of images, 2 or more.
        seed: of pictures and images.
    Returns:
        `sliced_wasserstein` between images and held-out pictures by level, and `sliced_wasserstein_data`, the same
        between training and held-out pictures, which is the best that can be expected; `seam_ratio` and
        `seam_ratio_data` by axis at patch borders, and across the wrap of a cyclic axis; `seam_ratio_single`, the
        smallest and the largest ratio of single borders, one of which is the wrap; `diversity` (1 is like the data),
        or the reason under `missing`.
    """
    config = model.config
    training = open_pictures(data, config.size, config.topology, "train", seed)
    held_out = training.on("held-out")
    real = np.stack([held_out.image(k) for k in range(count)])
    other = np.stack([training.image(k) for k in range(count)])
    generated = model.generate(count, seed)
    wraps = config.lattice.axes[1].cyclic and held_out.cyclic[1]
    try:
        varied: dict[str, Any] = {"diversity": diversity(real, generated)}
    except DataError as error:  # for example, a folder has one held-out picture
        varied = {"missing": {str(error): ["diversity"]}}
    return (
        said(model, data, held_out)
        | varied
        | {
            "sliced_wasserstein": sliced_wasserstein(real, generated, wrap=wraps),
            "sliced_wasserstein_data": sliced_wasserstein(real, other, wrap=wraps),
            "seam_ratio": _seams(model, list(generated), config.patch, (True, True)),
            "seam_ratio_data": _seams(model, list(real), config.patch, held_out.cyclic),
            "seam_ratio_single": _single_seams(list(generated), config.patch),
        }
    )


def held_out_images(model: CocoGan, data: str, count: int) -> Pixels:
    """Return held-out pictures, uint8 [count, H, W, 3]."""
    held_out = open_pictures(data, model.size, model.config.topology, "held-out")
    return np.stack([held_out.image(k) for k in range(count)])


def evaluate_file(model: CocoGan, path: Path, data: str) -> dict[str, Any]:
    """Measure seam ratios of a rendered panorama at patch and half-step borders, and of the data at the same places.

    Args:
        model: the model that rendered it.
        path: a .tif or .png file.
        data: data set or folder, of which 32 held-out pictures are the reference.
    Returns:
        `seam_ratio` and `seam_ratio_half_step` by axis, and across the wrap of a cyclic axis; the names with `_data`
        are those of the data.
    """
    image = open_pixels(path)
    config = model.config
    held_out = open_pictures(data, config.size, config.topology, "held-out")
    real = [held_out.image(k) for k in range(_REFERENCES)]
    return said(model, data, held_out) | {
        "image": str(path),
        "width": image.shape[1],
        "height": image.shape[0],
        "seam_ratio": _seams(model, [image], config.patch, (True, True)),
        "seam_ratio_half_step": _seams(model, [image], config.patch // 2, (True, True)),
        "seam_ratio_data": _seams(model, real, config.patch, held_out.cyclic),
        "seam_ratio_half_step_data": _seams(model, real, config.patch // 2, held_out.cyclic),
    }


def _seams(model: CocoGan, images: list[Pixels], pitch: int, closed: tuple[bool, bool]) -> dict[str, float]:
    """Return ratios at multiples of `pitch` by axis, and across the wrap of axes that close in model and images."""
    ratios = {name: seam_ratio(images, pitch, axis) for name, axis in _AXES.items()}
    for (name, axis), line in zip(_AXES.items(), model.config.lattice.axes, strict=True):
        if line.cyclic and closed[axis]:
            ratios[f"{name}_wrap"] = seam_ratio(images, pitch, axis, wrap=True)
    return ratios


def _single_seams(images: list[Pixels], pitch: int) -> dict[str, list[float]]:
    """Return, by axis, the smallest and the largest ratio of a single border, each border pooled over the images."""
    ranges = {}
    for name, axis in _AXES.items():
        length = images[0].shape[axis]
        ratios = [seam_ratio(images, length, axis, phase=border) for border in range(pitch, length, pitch)]
        ranges[name] = [min(ratios), max(ratios)]
    return ranges
