"""What `zellige evaluate` reports of a rearranger: whether images keep the mask's layout and the source's style."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ....engine.layers.ambient import own_modes
from ....engine.systems.rearranger.masks import mean_iou
from ....engine.systems.rearranger.model import RearrangerModel
from ...data.sources import open_pictures
from ...evaluate import said
from ...metrics.pictures import diversity, sliced_wasserstein

__all__ = ["COUNT", "evaluate", "held_out_images"]

Pixels = npt.NDArray[np.uint8]

COUNT = 256  # images, unless another number is asked for
_PAPER = {"data": "CelebAMask-HQ at 256 pixels, one labelled image; masks read by a face parser", "mask_iou": 0.531}
_BATCH = 8
_BINS = 4  # of each colour, for a histogram


def evaluate(model: RearrangerModel, data: str, count: int, seed: int) -> dict[str, Any]:
    """Rearrange images of a seed by the masks of the next seed.

    Args:
        model: the model.
        data: data set or folder, for the distance of images.
        count: images, 2 or more.
        seed: of styles; masks are of images of `seed` + 1.
    Returns:
        `mask_iou`, mean IoU of the labels of rearranged features and the given masks, and `mask_iou_source`, that of
        the sources' own masks and the given ones, below which nothing was rearranged; `self_error`, the mean absolute
        difference of images that were rearranged by their own mask, as a share of the range; `colour_distance`, of
        colour histograms of rearranged images and their sources (0 to 1), and `colour_distance_others`, of images of
        unlike styles; `sliced_wasserstein` of rearranged images and held-out pictures, and `sliced_wasserstein_base`,
        that of the generator's own images; `diversity` beside the generator's images; `paper`.
    """
    held_out = open_pictures(data, model.size, "plane", "held-out", seed)
    real = np.stack([held_out.image(k) for k in range(count)])
    styles = [f"seed:{seed}:{k}" for k in range(count)]
    made = model.rearrange(styles, [f"seed:{seed + 1}:{k}" for k in range(count)])
    again, base = model.rearrange(styles, styles), model.project(styles)
    histograms = [_histograms(images) for images in (made, base)]
    return (
        said(model, data, held_out)
        | _masks(model, count, seed)
        | {
            "self_error": float(np.abs(again.astype(np.int16) - base).mean() / 255),
            "colour_distance": _distance(*histograms),
            "colour_distance_others": _distance(histograms[1], np.roll(histograms[1], 1, 0)),
            "sliced_wasserstein": sliced_wasserstein(real, made),
            "sliced_wasserstein_base": sliced_wasserstein(real, base),
            "diversity": diversity(base, made),
            "paper": _PAPER,
        }
    )


@own_modes()
@torch.inference_mode()
def _masks(model: RearrangerModel, count: int, seed: int) -> dict[str, float]:
    found: list[tuple[torch.Tensor, ...]] = []
    for start in range(0, count, _BATCH):
        rows = range(start, min(start + _BATCH, count))
        source, other = (model.source([f"seed:{seed + more}:{k}" for k in rows]) for more in (0, 1))
        own, wanted = model.networks.mask(source), model.networks.mask(other)
        moved = model.networks.moved(source, wanted)
        found.append((model.networks.labels(moved.map), own, wanted))
    made, own, wanted = (torch.cat(part) for part in zip(*found, strict=True))
    clusters = model.config.clusters
    return {"mask_iou": mean_iou(made, wanted, clusters), "mask_iou_source": mean_iou(own, wanted, clusters)}


def _histograms(images: Pixels) -> npt.NDArray[np.float64]:
    """Shares of the pixels in each of 64 cells of colours, [N, 64]."""
    cells = (images.astype(np.int64) * _BINS // 256) @ np.array([_BINS * _BINS, _BINS, 1])
    counts = [np.bincount(one.ravel(), minlength=_BINS**3) for one in cells]
    return np.stack(counts) / cells[0].size


def _distance(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Half the sum of differences of shares, mean over images."""
    return float(np.abs(a - b).sum(1).mean() / 2)


def held_out_images(model: RearrangerModel, data: str, count: int) -> Pixels:
    """Held-out pictures, uint8 [count, R, R, 3]."""
    held_out = open_pictures(data, model.size, "plane", "held-out")
    return np.stack([held_out.image(k) for k in range(count)])
