"""Draws pose codes and classes for the images that a OneGAN generates under a seed."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from zellige.errors import SizeError, TaskError

from .config import OneGanConfig

__all__ = ["Classes", "chosen_classes", "draw_latents", "draw_pairs"]

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Classes = int | Sequence[int] | Indices


def draw_latents(config: OneGanConfig, seed: int, count: int, first: int = 0) -> tuple[npt.NDArray[np.float32], Floats]:
    """Draw pose codes for images from `first` on, which depend neither on their number nor on their classes.

    Returns:
        normally distributed pose codes, float32 [count, latent]; and numbers in [0, 1) for `draw_pairs`, [count, 2].
    Raises:
        SizeError: `count` is below 1, or the seed is negative.
    """
    if count < 1:
        raise SizeError(f"{count} images cannot be generated; ask for 1 or more")
    if seed < 0:
        raise SizeError(f"the seed must be 0 or more, not {seed}")
    latents, shares = [], []
    for index in range(first, first + count):
        random = np.random.default_rng((seed, index))
        latents.append(random.standard_normal(config.latent, np.float32))
        shares.append(random.random(2))
    return np.stack(latents), np.stack(shares)


def draw_pairs(
    config: OneGanConfig, children: Indices | None, parents: Indices | None, shares: Floats
) -> tuple[Indices, Indices]:
    """Children and parents, [count] each; classes that are None are drawn among those that training pairs them with."""
    count = len(shares)
    if children is None:
        first, after = np.zeros(count, np.int64), np.full(count, config.children)
        if parents is not None and config.tie_parents:  # the children whose floor(child P / C) is the parent
            first, after = (-(-(parents + k) * config.children // config.parents) for k in (0, 1))
        children = first + (shares[:, 0] * (after - first)).astype(np.int64)
    if parents is None:
        tied = children * config.parents // config.children
        parents = tied if config.tie_parents else (shares[:, 1] * config.parents).astype(np.int64)
    return children, parents


def chosen_classes(config: OneGanConfig, name: str, kind: str, classes: Classes, count: int) -> Indices:
    """Check classes and return one for each image, [count].

    Args:
        config: the model's configuration.
        name: the model's name, for errors.
        kind: "child", "parent" or "background".
        classes: one class for all images, or one for each.
        count: number of images.
    Raises:
        TaskError: the model has no such class, or `classes` is neither one class nor `count` classes.
    """
    many = {"child": config.children, "parent": config.parents, "background": config.backgrounds}[kind]
    chosen = np.asarray(classes)
    if chosen.dtype.kind not in "iu" or chosen.shape not in ((), (count,)):
        raise TaskError(
            f"{kind} must be a class, or {count} of them, one an image; got {chosen.dtype} {list(chosen.shape)}"
        )
    outside = chosen[(chosen < 0) | (chosen >= many)]
    if outside.size:
        raise TaskError(f"{name} has no {kind} class {outside.flat[0]}; its {many} are 0 to {many - 1}")
    return np.broadcast_to(chosen.astype(np.int64), count).copy()
