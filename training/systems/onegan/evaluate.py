"""The report of `zellige evaluate` on a OneGAN: masks, clusters, images, reconstructions, backgrounds."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from zellige.errors import DataError

from ....engine.systems.onegan.model import OneGan
from ...data.scenes import LabelledImage, Scenes
from ...data.sources import open_scenes
from ...evaluate import said
from ...metrics.agreement import (
    clustering_accuracy,
    dice,
    intersection_over_union,
    matched_clusters,
    normalized_mutual_information,
)
from ...metrics.pictures import sliced_wasserstein

__all__ = ["COUNT", "FIRST", "MOST_COMPARED", "compare_scenes", "evaluate", "held_out_images"]

Pixels = npt.NDArray[np.uint8]
Column = npt.NDArray[Any]

COUNT = 1024  # scenes, unless --count gives another number
# The number of the first scene. Training counts from 0 and comes nowhere near it. Scenes with the numbers of training
# would have the same objects at the same places, only on other grounds.
FIRST = 2**39
# Pictures of each set whose patches are compared; they are in memory together, all others batch by batch.
MOST_COMPARED = 512
# The value for equal pictures, because an error of 0 has no logarithm.
_MOST_DECIBELS = 100.0

_HELD_OUT = {
    "emoji": "places on the ground, in one octant of the globe; the emoji are those of the training",
    "emoji-unseen": "places on the ground, in one octant of the globe, and all emoji",
}
_OF_A_FOLDER = "one picture in ten, by its content, if there is one"
_OF_MASKS = ("iou", "iou_all_foreground", "dice")
_OF_CLASSES = tuple(
    f"{kind}_{name}"
    for kind in ("child", "parent")
    for name in ("accuracy", "accuracy_chance", "nmi", "nmi_chance")
)  # fmt: skip
_OF_GROUNDS = tuple(f"inpainting_{name}" for name in ("l1", "psnr", "l1_behind", "psnr_behind", "psnr_behind_flat"))


def evaluate(model: OneGan, data: str, count: int, seed: int) -> dict[str, Any]:
    """Compare a model's readings of held-out scenes with the truth, and its generated images with the scenes.

    Args:
        model: the model.
        data: "emoji", "emoji-unseen" or a folder.
        count: number of scenes, 2 or more; each takes some 100 bytes of memory.
        seed: of scenes and generated images.
    Returns:
        the keys of `compare_scenes`, and `held_out`, the part of the data that training never sees.
    """
    training = open_scenes(data, model.size, "train", seed)
    held_out = training.on("held-out")
    told = {"held_out": _HELD_OUT.get(data, _OF_A_FOLDER)}
    return said(model, data, held_out) | told | compare_scenes(model, held_out, training, count, seed)


def held_out_images(model: OneGan, data: str, count: int) -> Pixels:
    """Return images of held-out scenes, uint8 [count, R, R, 3]."""
    held_out = open_scenes(data, model.size, "held-out", 0)
    return np.stack([held_out.scene(FIRST + k).image for k in range(count)])


def compare_scenes(model: OneGan, held_out: Scenes, training: Scenes, count: int, seed: int = 0) -> dict[str, Any]:
    """Measure a model on scenes FIRST, FIRST + 1, ... of a source.

    Args:
        model: the model.
        held_out: the source of the scenes.
        training: a source of training scenes, for the best distance that can be expected.
        count: number of scenes, 2 or more.
        seed: of generated images, and of the shuffling that measures chance.
    Returns:
        `iou`, `dice` of masks, mean over images, and `iou_all_foreground` for a mask that covers everything;
        `child_accuracy`, `child_nmi`, `parent_accuracy`, `parent_nmi` of clusters over all scenes, each with `_chance`
        for shuffled clusters; `reconstruction_psnr` in decibels, mean over images; `inpainting_l1` (levels of 255) and
        `inpainting_psnr` of made backgrounds against true ones, with `_behind` for the part that the object hides, and
        `inpainting_psnr_behind_flat` for the visible ground's mean colour in that part; `sliced_wasserstein` between
        generated images and scenes, `sliced_wasserstein_data` between training scenes and these, of at most
        MOST_COMPARED each; `missing`, a reason -> the metrics that are left out for it; `per_class` and `per_parent`,
        one dictionary a class.
    """
    compared = min(count, MOST_COMPARED)
    generated = model.generate(compared, seed)  # it comes first, because it refuses seeds that are out of bounds
    real, parts = np.empty_like(generated), []
    for start in range(0, count, model.batch):
        scenes = [held_out.scene(FIRST + k) for k in range(start, min(start + model.batch, count))]
        parts.append(_measure(model, scenes))
        for k, scene in enumerate(scenes[: max(0, compared - start)], start):
            real[k] = scene.image
    columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    # Training scenes have other numbers than held-out ones, else both would have the same objects at the same places.
    other = np.stack([training.scene(FIRST + count + k).image for k in range(compared)])
    report: dict[str, Any] = {key: _mean(columns[key]) for key in _OF_MASKS if key in columns}
    for kind in ("child", "parent"):
        if kind in columns:
            report |= _agreement(kind, columns[f"{kind}_cluster"], columns[kind], seed)
    report |= {key: _mean(columns[key]) for key in ("reconstruction_psnr", *_OF_GROUNDS) if key in columns}
    report |= {
        "sliced_wasserstein": sliced_wasserstein(real, generated),
        "sliced_wasserstein_data": sliced_wasserstein(real, other),
        "missing": _missing(report),
    }
    if "child" in columns:
        over = [held_out.parents[parent] for parent in held_out.parent_of]
        report["per_class"] = _by_class("child", held_out.children, columns, over)
    if "parent" in columns:
        report["per_parent"] = _by_class("parent", held_out.parents, columns)
    return report


def _measure(model: OneGan, scenes: list[LabelledImage]) -> dict[str, Column]:
    """Measure some scenes as far as the truth is known: a column [N] for each number, NaN for scenes without it."""
    images = np.stack([scene.image for scene in scenes])
    made = model.reconstruct(images)
    found: dict[str, list[Any]] = {"reconstruction_psnr": [*map(_psnr, made.image, images)]}
    masks = [scene.mask for scene in scenes if scene.mask is not None]
    if masks:
        # Pictures are measured one by one, because classes need every picture's own number.
        pairs = [(ours[None], mask[None]) for ours, mask in zip(made.mask, masks, strict=True)]
        found["iou"] = [intersection_over_union(ours, mask) for ours, mask in pairs]
        found["dice"] = [dice(ours, mask) for ours, mask in pairs]
        found["iou_all_foreground"] = [intersection_over_union(np.ones(t.shape, np.bool_), t) for _, t in pairs]
    if scenes[0].child is not None:
        clusters = model.cluster(images)
        if not np.isfinite(clusters.confidence).all():
            raise DataError("the encoders gave probabilities that are not finite, so that no class is the likeliest")
        found |= {"child": [scene.child for scene in scenes], "child_cluster": [*clusters.child]}
        found |= {"parent": [scene.parent for scene in scenes], "parent_cluster": [*clusters.parent]}
    grounds = [scene.ground for scene in scenes if scene.ground is not None]
    if grounds and masks:
        rows = [*map(_background_errors, made.background, grounds, masks)]
        found |= {key: [row[key] for row in rows] for key in _OF_GROUNDS}
    return {key: np.array(values) for key, values in found.items()}


def _background_errors(made: Pixels, ground: Pixels, mask: Pixels) -> dict[str, float]:
    """Return errors of one background [H, W, 3]: of all of it, and of the part that the mask hides."""
    behind, visible = mask >= 128, mask == 0
    errors = {"inpainting_l1": _l1(made, ground), "inpainting_psnr": _psnr(made, ground)}
    flat = ground[visible].mean(axis=0) if visible.any() else np.full(3, np.nan)
    return errors | {
        "inpainting_l1_behind": _l1(made[behind], ground[behind]),
        "inpainting_psnr_behind": _psnr(made[behind], ground[behind]),
        "inpainting_psnr_behind_flat": _psnr(np.broadcast_to(flat, ground[behind].shape), ground[behind]),
    }


def _l1(one: Column, other: Column) -> float:
    return float(np.abs(one.astype(np.float64) - other).mean()) if one.size else math.nan


def _psnr(one: Column, other: Column) -> float:
    """Return 10 log10(255^2 / mean squared error), in decibels; NaN if there are no pixels."""
    if not one.size:
        return math.nan
    error = float(((one.astype(np.float64) - other) ** 2).mean()) / 255**2
    return _MOST_DECIBELS if error == 0 else min(_MOST_DECIBELS, -10 * math.log10(error))


def _agreement(kind: str, clusters: Column, classes: Column, seed: int) -> dict[str, float]:
    # Few pictures of many classes agree well by chance: with one picture a class, the chance value is 1.
    shuffled = np.random.default_rng(seed).permutation(clusters)
    return {
        f"{kind}_accuracy": clustering_accuracy(clusters, classes),
        f"{kind}_accuracy_chance": clustering_accuracy(shuffled, classes),
        f"{kind}_nmi": normalized_mutual_information(clusters, classes),
        f"{kind}_nmi_chance": normalized_mutual_information(shuffled, classes),
    }


def _by_class(
    kind: str, names: tuple[str, ...], columns: Mapping[str, Column], parents: list[str] | None = None
) -> list[dict[str, Any]]:
    """Make a dictionary for each class; None stands for numbers of a class without pictures, and for no cluster."""
    classes, clusters = columns[kind], columns[f"{kind}_cluster"]
    matched = matched_clusters(clusters, classes)
    rows = []
    for index, name in enumerate(names):
        own = classes == index
        row: dict[str, Any] = {"name": name} | ({} if parents is None else {"parent": parents[index]})
        row |= {"images": int(own.sum())}
        row |= {key: _mean(columns[key][own]) for key in ("iou", "dice") if key in columns}
        row |= {"accuracy": _mean(clusters[own] == matched.get(index, -1)), "cluster": matched.get(index)}
        rows.append(row)
    return rows


def _mean(values: Column) -> float | None:
    """Return the mean of the values that are not NaN, or None, which JSON can express, if there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _missing(report: Mapping[str, Any]) -> dict[str, list[str]]:
    reasons = {
        "the data has no true masks": _OF_MASKS,
        "the data has no classes": _OF_CLASSES,
        "the data has no true backgrounds": _OF_GROUNDS,
    }
    left_out = {reason: [key for key in keys if key not in report] for reason, keys in reasons.items()}
    return {reason: keys for reason, keys in left_out.items() if keys}
