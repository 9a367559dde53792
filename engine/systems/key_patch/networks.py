"""Key patches: a part encoder, a mask decoder, and an image decoder with a doubled U.

The encoder reads every patch by itself. Its maps and its encodings are summed over the patches of an image, so that any
number of patches, in any order, runs through the same weights.

Source: Lee, Yun, Choi, Yoo, Yang, Oh, "Unsupervised Holistic Image Generation from Key Local Patches", ECCV 2018, and
its supplementary, table 2.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from ...layers.batch_parts import is_written
from .config import KeyPatchConfig

__all__ = ["Composition", "Discriminator", "ImageDecoder", "KeyPatchNetworks", "MaskDecoder", "PartEncoder", "Parts"]

_SLOPE = 0.2  # of every leaky ReLU
_DEVIATION = 0.02  # of starting weights


@dataclass(frozen=True)
class Parts:
    """What the encoder makes of patches.

    Args:
        maps: of every scale, from the largest to 4 x 4, [N, C, H, W].
        encoding: [N, E].
    """

    maps: tuple[Tensor, ...]
    encoding: Tensor


@dataclass(frozen=True)
class Composition:
    """What is made of patches.

    Args:
        image: [N, 3, R, R] in [-1, 1].
        mask: [N, 1, R, R] in [0, 1], where the patches belong; None without a mask decoder.
    """

    image: Tensor
    mask: Tensor | None


class PartEncoder(nn.Module):
    """Stretched patches to maps of every scale and an encoding. Source: supplementary, table 2a."""

    def __init__(self, config: KeyPatchConfig) -> None:
        super().__init__()
        self.steps = _trunk(config)
        self.last = nn.Sequential(nn.Conv2d(config.channels[-1], config.encoding, 4), nn.LeakyReLU(_SLOPE))

    def forward(self, patches: Tensor) -> Parts:
        """Patches [M, 3, R, R] in [-1, 1], each by itself."""
        x, maps = patches, []
        for step in self.steps:
            x = step(x)
            maps.append(x)
        return Parts(tuple(maps), self.last(x).flatten(1))


class MaskDecoder(nn.Module):
    """Summed maps and encodings to a mask. Source: supplementary, table 2b."""

    def __init__(self, config: KeyPatchConfig) -> None:
        super().__init__()
        self.first = _first(config.encoding, config.channels[-1])
        self.steps = _up_steps(config, 2, outputs=1)

    def forward(self, parts: Parts) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Logits of the mask, [N, 1, R, R], and the joined maps of every scale from 4 x 4 on, [N, 2 C, H, W]."""
        x, joined = self.first(parts.encoding[:, :, None, None]), []
        for step, found in zip(self.steps, reversed(parts.maps), strict=True):
            joined.append(torch.cat([x, found], dim=1))  # own map, encoder's map
            x = step(joined[-1])
        return x, tuple(joined)


class ImageDecoder(nn.Module):
    """Encodings, and maps that others made, to an image: the outer U. Source: supplementary, table 2b."""

    def __init__(self, config: KeyPatchConfig) -> None:
        super().__init__()
        shares = {"mask": 3, "encoder": 2, "encoding": 1}[config.wiring]
        self.first = _first(config.encoding + config.z_dim, config.channels[-1])
        self.steps = _up_steps(config, shares, outputs=3)

    def forward(self, encoding: Tensor, beside: tuple[Tensor, ...]) -> Tensor:
        """Encodings [N, E + z] and maps of every scale from 4 x 4 on, or none, to images [N, 3, R, R] before tanh."""
        x = self.first(encoding[:, :, None, None])
        for level, step in enumerate(self.steps):
            x = step(torch.cat([x, beside[level]], dim=1) if beside else x)
        y: Tensor = x
        return y


class Discriminator(nn.Module):
    """Images to logits of being real; the encoder's layers with weights of their own. Source: table 2a."""

    def __init__(self, config: KeyPatchConfig) -> None:
        super().__init__()
        self.steps = _trunk(config)
        self.last = nn.Conv2d(config.channels[-1], 1, 4)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, R, R] in [-1, 1] to logits [N]."""
        y: Tensor = self.last(self.features(images)).flatten()
        return y

    def features(self, images: Tensor) -> Tensor:
        """The last map, [N, C, 4, 4], by which images are described."""
        y: Tensor = self.steps(images)
        return y


class KeyPatchNetworks(nn.Module):
    """Part encoder, mask decoder and image decoder, and the way from patches to an image."""

    def __init__(self, config: KeyPatchConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = PartEncoder(config)
        self.mask = MaskDecoder(config) if config.has_mask else None
        self.image = ImageDecoder(config)
        initialise(self)

    def forward(self, patches: Tensor, counts: Tensor | None = None, z: Tensor | None = None) -> Composition:
        """Compose images.

        Args:
            patches: [N, K, 3, R, R] in [-1, 1].
            counts: how often each patch counts in the sum, [N, K], 0 for a place without a patch; None counts all once.
            z: random numbers [N, z_dim], uniform on [-1, 1]; None if the network takes none.
        """
        return self.decode(self.encode(patches, counts), z)

    def encode(self, patches: Tensor, counts: Tensor | None = None) -> Parts:
        """All patches of all images as one batch, then the sums over the patches of an image."""
        number = patches.shape[:2]
        parts = self.encoder(patches.flatten(0, 1).to(next(self.encoder.parameters()).dtype))
        maps = tuple(_summed(x.unflatten(0, number), counts) for x in parts.maps)
        return Parts(maps, _summed(parts.encoding.unflatten(0, number), counts))

    def decode(self, parts: Parts, z: Tensor | None = None) -> Composition:
        """Both decoders, on summed maps and encodings."""
        if self.mask is not None:
            logits, joined = self.mask(parts)
            mask = _finished(logits).sigmoid()
        else:
            mask, joined = None, tuple(reversed(parts.maps)) if self.config.wiring == "encoder" else ()
        encoding = parts.encoding if z is None else torch.cat([parts.encoding, z.to(parts.encoding.dtype)], dim=1)
        return Composition(_finished(self.image(encoding, joined)).tanh(), mask)


def initialise(network: nn.Module) -> None:
    """Starting weights: N(0, 0.02), scales of norms N(1, 0.02), no shift. Source: supplementary."""
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(part.weight, std=_DEVIATION)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1.0, _DEVIATION)
            nn.init.zeros_(part.bias)


def _trunk(config: KeyPatchConfig) -> nn.Sequential:
    """Layers of stride 2 down to 4 x 4, the first without a norm."""
    steps, inputs = [], 3
    for level, outputs in enumerate(config.channels):
        conv = nn.Conv2d(inputs, outputs, config.kernel, 2, _padding(config), bias=level == 0)
        norm = [nn.BatchNorm2d(outputs)] if level else []
        steps.append(nn.Sequential(conv, *norm, nn.LeakyReLU(_SLOPE)))
        inputs = outputs
    return nn.Sequential(*steps)


def _first(inputs: int, outputs: int) -> nn.Sequential:
    """Vectors as maps of 1 x 1 to maps of 4 x 4; the norm is over the channels of the map."""
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 4, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def _up_steps(config: KeyPatchConfig, shares: int, outputs: int) -> nn.ModuleList:
    """Layers that double the side, each on `shares` maps of one width; the last has no norm and no activation."""
    kernel, pad = config.kernel, _padding(config)
    sides = (*reversed(config.channels), outputs)  # channels of the own maps, from 4 x 4 to the result
    steps: list[nn.Module] = []
    for own, following in pairwise(sides):
        last = len(steps) == len(config.channels) - 1
        conv = nn.ConvTranspose2d(shares * own, following, kernel, 2, pad, kernel - 4, bias=last)
        rest = [] if last else [nn.BatchNorm2d(following), nn.ReLU(inplace=True)]
        steps.append(nn.Sequential(conv, *rest))
    return nn.ModuleList(steps)


def _padding(config: KeyPatchConfig) -> int:
    """Padding with which stride 2 halves and doubles sides exactly."""
    return 1 if config.kernel == 4 else 2


def _summed(x: Tensor, counts: Tensor | None) -> Tensor:
    """Sums over the patches: [N, K, ...] to [N, ...], each patch counted once or as often as `counts` says."""
    if counts is None:
        return x.sum(dim=1)
    counts = counts.to(x.dtype)
    if x.dim() == 5 and not is_written():
        # A product of matrices reads the maps once: 3 to 8 times as fast as multiplying and adding on CPUs.
        pixels = x.permute(0, 1, 3, 4, 2)  # [N, K, H, W, C], contiguous in channels-last
        return (counts[:, None] @ pixels.flatten(2)).view(len(x), *pixels.shape[2:]).permute(0, 3, 1, 2)
    return (x * counts.view(*counts.shape, *[1] * (x.dim() - 2))).sum(dim=1)


def _finished(x: Tensor) -> Tensor:
    """A head's output in the precision that losses and later stages see, also under autocast."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
