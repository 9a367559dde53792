"""Key patches: a part encoder, a mask decoder, and an image decoder with a doubled U.

The encoder reads every patch by itself. Its maps and its encodings are summed over the patches of an image, so that any
number of patches, in any order, runs through the same weights.

Source: Lee, Yun, Choi, Yoo, Yang, Oh, "Unsupervised Holistic Image Generation from Key Local Patches", ECCV 2018, and
its supplementary, table 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...layers.batch_parts import is_written, joined, part_sizes, parts_of
from ...layers.convolutions import JoinedConvTranspose2d
from .config import KeyPatchConfig

__all__ = ["Composition", "Discriminator", "ImageDecoder", "KeyPatchNetworks", "MaskDecoder", "PartEncoder", "Parts"]

_WIDE = 3  # scales, from the largest on, whose maps are large and whose weights are small
# Bytes of a map of a part at most. The C heap gives larger ones back to the system, and takes fresh pages for the next.
_KEPT = 2**25
_SLOPE = 0.2  # of every leaky ReLU
_DEVIATION = 0.02  # of starting weights


@dataclass(frozen=True)
class Parts:
    """What the encoder makes of patches.

    Args:
        maps: of every scale, from the largest to 4 x 4: parts of the batch, which together are [N, C, H, W].
        encoding: [N, E].
    """

    maps: tuple[tuple[Tensor, ...], ...]
    encoding: Tensor

    def __add__(self, other: "Parts") -> "Parts":
        """The sums of more patches of the same images."""
        maps = (map(torch.add, mine, theirs) for mine, theirs in zip(self.maps, other.maps, strict=True))
        return Parts(tuple(map(tuple, maps)), self.encoding + other.encoding)


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
        self.last = nn.Sequential(
            nn.Conv2d(config.channels[-1], config.encoding, 4), nn.LeakyReLU(_SLOPE, inplace=True)
        )


class MaskDecoder(nn.Module):
    """Summed maps and encodings to a mask. Source: supplementary, table 2b."""

    def __init__(self, config: KeyPatchConfig) -> None:
        super().__init__()
        self.first = _first(config.encoding, config.channels[-1])
        self.steps = _up_steps(config, 2, outputs=1)


class ImageDecoder(nn.Module):
    """Encodings, and maps that others made, to an image: the outer U. Source: supplementary, table 2b."""

    def __init__(self, config: KeyPatchConfig) -> None:
        super().__init__()
        shares = {"mask": 3, "encoder": 2, "encoding": 1}[config.wiring]
        self.first = _first(config.encoding + config.z_dim, config.channels[-1])
        self.steps = _up_steps(config, shares, outputs=3)


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
        self.heads: nn.Module | None = None
        initialise(self)

    def forward(self, patches: Tensor, counts: Tensor | None = None, z: Tensor | None = None) -> Composition:
        """Compose images.

        Args:
            patches: [N, K, 3, R, R] in [-1, 1].
            counts: how often each patch counts in the sum, [N, K], 0 for a place without a patch; None counts all once.
            z: random numbers [N, z_dim], uniform on [-1, 1]; None if the network takes none.
        """
        return self.decode(self.encode(patches, counts), z)

    @torch.no_grad()
    def join_layers(self) -> None:
        """Make one layer of the last ones of both decoders, which read the same maps; for inference alone.

        The mask's part reads the image decoder's own map too, with weights of zero. Libraries make 16 outputs in the
        time of 12 or 4, so this takes three fifths of the time.
        """
        if self.mask is None or self.heads is not None:
            return
        image, mask = (decoder.steps[-1][0] for decoder in (self.image, self.mask))  # type: ignore[index]
        joined: Any = JoinedConvTranspose2d(
            image.parts, 4, image.kernel_size[0], 2, image.padding[0], image.output_padding[0]
        )
        joined.to(image.weight.device, image.weight.dtype)
        unread = mask.weight.new_zeros(image.parts[0], *mask.weight.shape[1:])
        joined.weight.copy_(torch.cat([image.weight, torch.cat([unread, mask.weight])], dim=1))
        joined.bias.copy_(torch.cat([image.bias, mask.bias]))
        self.heads = joined.eval().requires_grad_(False)
        del self.image.steps[-1], self.mask.steps[-1]

    def encode(self, patches: Tensor, counts: Tensor | None = None) -> Parts:
        """The encoder on all patches of all images, then the sums over the patches of an image."""
        number = patches.shape[:2]
        patches = patches.to(_dtype(self.encoder))
        given = (patches,) if counts is None else (patches, counts)
        wide = [self._encode_wide(*part) for part in parts_of(self._part_sizes(patches, number[1]), *given)]
        last, *maps = zip(*wide, strict=True)
        x = joined(last)
        for step in list(self.encoder.steps)[_WIDE:]:
            x = step(x)
            maps.append((_summed(x.unflatten(0, number), counts),))
        return Parts(tuple(maps), _summed(self.encoder.last(x).flatten(1).unflatten(0, number), counts))

    def decode(self, parts: Parts, z: Tensor | None = None) -> Composition:
        """Both decoders, side by side, on summed maps and encodings."""
        encoding = parts.encoding if z is None else torch.cat([parts.encoding, z.to(parts.encoding.dtype)], dim=1)
        own: tuple[Tensor, ...] = (self.image.first(encoding[:, :, None, None]),)
        own += () if self.mask is None else (self.mask.first(parts.encoding[:, :, None, None]),)
        found = tuple(reversed(parts.maps))  # from 4 x 4 on
        deep = len(found) - _WIDE
        own = self._decode_steps(own, [maps[0] for maps in found[:deep]], 0)
        sizes = self._part_sizes(own[0], len(own) + 1)
        wide = [_in_parts(maps, sizes) for maps in found[deep:]]
        made = [self._decode_steps(part, maps, deep) for part, *maps in zip(parts_of(sizes, *own), *wide, strict=True)]
        image, *mask = (_finished(joined(halves)) for halves in zip(*made, strict=True))
        return Composition(image.tanh(), mask[0].sigmoid() if mask else None)

    def _encode_wide(self, patches: Tensor, counts: Tensor | None = None) -> list[Tensor]:
        """The last of the wide scales, then the sums of each of them."""
        x, maps = patches.flatten(0, 1), []
        for step in list(self.encoder.steps)[:_WIDE]:
            x = step(x)
            maps.append(_summed(x.unflatten(0, patches.shape[:2]), counts))
        return [x, *maps]

    def _decode_steps(self, own: tuple[Tensor, ...], found: Sequence[Tensor], first: int) -> tuple[Tensor, ...]:
        """Steps of both decoders from `first` on: the image decoder's map, then the mask decoder's if there is one.

        The image decoder reads its own map and all that the mask decoder reads: that one's map, and the encoder's.
        """
        decoders = [decoder for decoder in (self.image, self.mask) if decoder is not None]
        for level, encoded in enumerate(found, first):
            read = own if self.config.wiring == "encoding" else (*own, encoded)
            if self.heads is not None and level == len(self.image.steps):
                y: Tensor = self.heads(*read)
                return y[:, :3].contiguous(memory_format=torch.channels_last), y[:, 3:]
            own = tuple(_on_joined(decoder.steps[level], *read[k:]) for k, decoder in enumerate(decoders))
        return own

    def _part_sizes(self, x: Tensor, number: int) -> list[int]:
        """In how many images each the wide scales run, with so many maps of the config's width an image."""
        side = self.config.resolution // 2
        widest = number * self.config.width * side * side * x.element_size()
        return part_sizes(x, widest, self.training, least=max(1, _KEPT // widest))


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
        steps.append(nn.Sequential(conv, *norm, nn.LeakyReLU(_SLOPE, inplace=True)))
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
        conv = JoinedConvTranspose2d((own,) * shares, following, kernel, 2, pad, kernel - 4, bias=last)
        rest = [] if last else [nn.BatchNorm2d(following), nn.ReLU(inplace=True)]
        steps.append(nn.Sequential(conv, *rest))
    return nn.ModuleList(steps)


def _dtype(network: nn.Module) -> torch.dtype:
    """Of its weights, which are buffers in rewritten layers."""
    return next(chain(network.parameters(), network.buffers())).dtype


def _on_joined(step: Any, *maps: Tensor) -> Tensor:
    """A step of a decoder on maps that are joined along their channels: own one, mask decoder's, encoder's."""
    conv, *rest = step
    x: Tensor = conv(*maps)
    for layer in rest:
        x = layer(x)
    return x


def _padding(config: KeyPatchConfig) -> int:
    """Padding with which stride 2 halves and doubles sides exactly."""
    return 1 if config.kernel == 4 else 2


def _summed(x: Tensor, counts: Tensor | None) -> Tensor:
    """Sums over the patches: [N, K, ...] to [N, ...], each patch counted once or as often as `counts` says."""
    if counts is None:
        return x.sum(dim=1)
    counts = counts.to(x.dtype)
    if x.dim() == 5 and not is_written() and not x.requires_grad:
        # Bags of rows read the maps once, and add in float32: up to 20 times as fast on CPUs as a product of matrices
        # in bfloat16, and as multiplying and adding.
        (number, among), high = counts.shape, x.shape[3]
        rows = torch.arange(counts.numel() * high, device=x.device).view(number, among, high).transpose(1, 2)
        pixels = x.permute(0, 1, 3, 4, 2)  # [N, K, H, W, C], contiguous in channels-last
        sums = F.embedding_bag(
            rows.flatten(0, 1), pixels.flatten(0, 2).flatten(1), mode="sum",
            per_sample_weights=counts.repeat_interleave(high, 0),
        )  # fmt: skip
        return sums.view(number, *pixels.shape[2:]).permute(0, 3, 1, 2)
    return (x * counts.view(*counts.shape, *[1] * (x.dim() - 2))).sum(dim=1)


def _in_parts(maps: Sequence[Tensor], sizes: Sequence[int]) -> Sequence[Tensor]:
    """Parts of a batch in other sizes; the encoder's are mostly those of the decoders."""
    if len(maps) == len(sizes) == 1 or [len(part) for part in maps] == sizes:
        return maps
    return joined(maps).split(list(sizes))


def _finished(x: Tensor) -> Tensor:
    """A head's output in the precision that losses and later stages see, also under autocast."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
