"""Differentiable augmentation of what a discriminator sees, for data sets of a few thousand images or fewer."""

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Augmentation", "augmented"]

Augmentation = Literal["colour", "translation", "cutout"]

_SHIFT = 1 / 8  # of a side, at most
_CUT = 1 / 2  # of a side


def augmented(images: Tensor, kinds: Collection[Augmentation], random: torch.Generator) -> Tensor:
    """Change images at random, each by itself, in a way that gradients pass through.

    Real and made images go through the same changes before D judges them, so that D cannot know real ones by heart and
    the generator does not learn the changes.

    Args:
        images: [N, 3, H, W] of -1 to 1, or beyond.
        kinds: `colour`, brightness moved by up to 0.5, saturation times 0 to 2, contrast times 0.5 to 1.5;
            `translation`, moved by up to an eighth of each side, with grey where nothing is; `cutout`, a square of half
            the sides set to grey.
        random: the source of every draw, on the device of the images.
    Returns:
        images of the same shape; the same values, if no kind is named.
    Source: Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", 2020.
    """
    for kind, change in _CHANGES.items():
        if kind in kinds:
            images = change(images, random)
    return images


def _draws(images: Tensor, random: torch.Generator) -> Tensor:
    """Numbers between 0 and 1, one an image: [N, 1, 1, 1]."""
    return torch.rand(len(images), 1, 1, 1, generator=random, device=images.device, dtype=torch.float32)


def _coloured(images: Tensor, random: torch.Generator) -> Tensor:
    images = images + (_draws(images, random) - 0.5)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * (2 * _draws(images, random))
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * (0.5 + _draws(images, random))


def _starts(count: int, side: int, reach: int, random: torch.Generator, device: torch.device) -> Tensor:
    """Places of the pixels that each image's row or column is made of, [N, side]: moved by up to `reach`."""
    moved = torch.randint(-reach, reach + 1, (count, 1), generator=random, device=device)
    return torch.arange(side, device=device) + moved


def _translated(images: Tensor, random: torch.Generator) -> Tensor:
    count, _, height, width = images.shape
    reach = [int(side * _SHIFT + 0.5) for side in (height, width)]
    rows, columns = (
        _starts(count, side, most, random, images.device) for side, most in zip((height, width), reach, strict=True)
    )
    padded = F.pad(images, (reach[1], reach[1], reach[0], reach[0]))
    rows, columns = rows + reach[0], columns + reach[1]
    each = torch.arange(count, device=images.device)[:, None, None]
    # Indices of three dimensions around a slice put the channels last, which is how the networks hold their maps.
    return padded[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _cut(images: Tensor, random: torch.Generator) -> Tensor:
    count, _, height, width = images.shape

    def outside(side: int) -> Tensor:
        cut = int(side * _CUT + 0.5)
        begin = torch.randint(0, side + (1 - cut % 2), (count, 1), generator=random, device=images.device) - cut // 2
        place = torch.arange(side, device=images.device)
        return (place < begin) | (place >= begin + cut)

    kept = outside(height)[:, :, None] | outside(width)[:, None, :]
    return images * kept[:, None]


_CHANGES: Mapping[Augmentation, Callable[[Tensor, torch.Generator], Tensor]] = MappingProxyType(
    {"colour": _coloured, "translation": _translated, "cutout": _cut}
)
