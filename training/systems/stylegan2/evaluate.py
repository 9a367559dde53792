"""What `zellige evaluate` reports of a StyleGAN2: how far its images are from held-out ones, and from its own data."""

from typing import Any

import numpy as np
import numpy.typing as npt

from ....engine.systems.stylegan2.model import StyleGan2
from ...data.sources import open_pictures
from ...evaluate import said
from ...metrics.neighbours import nearest
from ...metrics.pictures import diversity, sliced_wasserstein

__all__ = ["COUNT", "evaluate", "held_out_images"]

Pixels = npt.NDArray[np.uint8]

COUNT = 512  # pictures, unless another number is asked for
_NEIGHBOURS = 2048  # training images that neighbours are sought among


def evaluate(model: StyleGan2, data: str, count: int, seed: int) -> dict[str, Any]:
    """Compare images of the seed, not truncated, with held-out pictures.

    Args:
        model: the model.
        data: data set or folder.
        count: images and pictures, 2 or more.
        seed: of both.
    Returns:
        `sliced_wasserstein` of images and held-out pictures, and `sliced_wasserstein_data` of training and held-out
        ones; `diversity`, 1 like the data; `nearest`, the mean absolute difference of images and their nearest training
        pictures as a share of the range, and `nearest_data`, that of held-out ones: images learnt by heart come to 0.
    """
    held_out = open_pictures(data, model.size, "plane", "held-out", seed)
    training = held_out.on("train")
    real = np.stack([held_out.image(k) for k in range(count)])
    known = np.stack([training.image(k) for k in range(max(count, min(_NEIGHBOURS, 4 * count)))])
    made = model.generate(count, seed)
    return said(model, data, held_out) | {
        "held_out": "one picture in ten, by its name or content",
        "sliced_wasserstein": sliced_wasserstein(real, made),
        "sliced_wasserstein_data": sliced_wasserstein(real, known[:count]),
        "diversity": diversity(known[:count], made),
        "nearest": float(nearest(made, known)[1].mean()),
        "nearest_data": float(nearest(real, known)[1].mean()),
    }


def held_out_images(model: StyleGan2, data: str, count: int) -> Pixels:
    """Held-out pictures, uint8 [count, R, R, 3]."""
    held_out = open_pictures(data, model.size, "plane", "held-out")
    return np.stack([held_out.image(k) for k in range(count)])
