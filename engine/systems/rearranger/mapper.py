"""The semantic mapper: a user's condition to the proxy mask that the rearranger reads.

Maps of classes run through OASIS's generator without its noise, up to the mask's side. Pictures such as sketches or
edges run through an encoder of StyleGAN2's discriminator blocks and a decoder with skip connections.

Sources: Schonfeld et al. 2021 (OASIS), Park et al. 2019 (SPADE), Ronneberger et al. 2015 (U-Net).
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from ...layers.equalised import ActivatedConv, EqualisedConv
from ..stylegan2.discriminator import Halving
from .config import MapperConfig, RearrangerConfig

__all__ = ["LabelMapper", "PictureMapper", "mapper_of"]

_SLOPE = 0.2  # of OASIS's leaky ReLU


def mapper_of(config: RearrangerConfig, *, trained: bool = True) -> "LabelMapper | PictureMapper":
    """The mapper of a configuration, which must have one.

    Args:
        config: of the rearranger.
        trained: whether it is built for weights of a file; else its convolutions begin with spectral norm.
    """
    assert config.mapper is not None, "a mapper's configuration"
    if config.mapper.kind == "labels":
        return LabelMapper(config.mapper, config.clusters, config.split, spectral=not trained)
    return PictureMapper(config.mapper, config.clusters, config.split, config.size[0])


class Spade(nn.Module):
    """norm(x) (1 + gamma(labels)) + beta(labels), where norm is a batch norm without parameters.

    Args:
        channels: of x.
        classes: of the labels.
        hidden: channels between labels and factors.
    """

    def __init__(self, channels: int, classes: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.shared = nn.Conv2d(classes, hidden, 3, padding=1)
        self.gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.beta = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Normalise [N, C, H, W] under labels [N, L, H', W'] of any size, one-hot or shares."""
        small = F.interpolate(labels, x.shape[2:], mode="nearest").to(x.dtype)
        hidden = F.relu(self.shared(small))
        y: Tensor = self.norm(x.float()).to(x.dtype) * (1 + self.gamma(hidden)) + self.beta(hidden)
        return y


class SpadeBlock(nn.Module):
    """Two convolutions behind SPADE norms, and a shortcut.

    Args:
        inputs, outputs: channels.
        config: classes and hidden channels.
        spectral: whether convolutions have spectral norm, as in training.
    """

    def __init__(self, inputs: int, outputs: int, config: MapperConfig, *, spectral: bool) -> None:
        super().__init__()
        middle, classes = min(inputs, outputs), len(config.names)
        self.norms = nn.ModuleList(Spade(n, classes, config.hidden) for n in (inputs, middle))
        convs = [nn.Conv2d(inputs, middle, 3, padding=1), nn.Conv2d(middle, outputs, 3, padding=1)]
        self.beside = Spade(inputs, classes, config.hidden) if inputs != outputs else None
        shortcut = [nn.Conv2d(inputs, outputs, 1, bias=False)] if inputs != outputs else []
        for conv in [*convs, *shortcut] if spectral else []:
            spectral_norm(conv)
        self.convs, self.shortcut = nn.ModuleList(convs), nn.ModuleList(shortcut)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Maps [N, C, H, W] to [N, C', H, W] under labels [N, L, H', W']."""
        y = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            y = conv(F.leaky_relu(norm(y, labels), _SLOPE))
        return y + (x if self.beside is None else self.shortcut[0](self.beside(x, labels)))


class LabelMapper(nn.Module):
    """Maps of classes to logits of proxy labels.

    Args:
        config: channels and classes.
        clusters: labels of proxy masks.
        side: of the masks.
        spectral: whether convolutions have spectral norm, as in training.
    Attributes:
        map_dtype: dtype of the maps, float32 unless it is set.
    """

    def __init__(self, config: MapperConfig, clusters: int, side: int, *, spectral: bool = False) -> None:
        super().__init__()
        self.map_dtype = torch.float32
        widths = config.channels
        self.start = side // 2 ** (len(widths) - 1)
        self.first = nn.Conv2d(len(config.names), widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(
            SpadeBlock(a, b, config, spectral=spectral) for a, b in zip(widths, (*widths[1:], widths[-1]), strict=True)
        )
        self.last = nn.Conv2d(widths[-1], clusters, 3, padding=1)

    def cast_maps(self, dtype: torch.dtype) -> None:
        """Compute maps of this dtype."""
        self.map_dtype = dtype

    def forward(self, condition: Tensor) -> Tensor:
        """Logits [N, K, S, S] float32 of one-hot labels [N, L, H, W]."""
        small = F.interpolate(condition, (self.start, self.start), mode="nearest").to(self.map_dtype)
        x = self.first(small)
        for number, block in enumerate(self.blocks):
            x = F.interpolate(x, scale_factor=2.0, mode="nearest") if number else x
            x = block(x, condition)
        logits: Tensor = self.last(F.leaky_relu(x, _SLOPE))
        return logits.float()


class PictureMapper(nn.Module):
    """Pictures to logits of proxy labels.

    Args:
        config: channels, from the smallest map on.
        clusters: labels of proxy masks.
        side: of the masks.
        size: side of the pictures.
    Attributes:
        map_dtype: dtype of the maps, float32 unless it is set.
    """

    def __init__(self, config: MapperConfig, clusters: int, side: int, size: int) -> None:
        super().__init__()
        self.map_dtype = torch.float32
        widths = config.channels  # of the smallest map up to the mask's
        finer = [widths[-1]] * (size.bit_length() - side.bit_length())  # of maps larger than the mask's
        down = [*reversed(finer), *reversed(widths)]
        self.first = ActivatedConv(3, down[0], 1)
        self.encoder = nn.ModuleList(Halving(a, b) for a, b in pairwise(down))
        self.decoder = nn.ModuleList(ActivatedConv(2 * a if k else a, b, padding=1)
                                     for k, (a, b) in enumerate(pairwise(widths)))  # fmt: skip
        self.join = ActivatedConv(2 * widths[-1] if len(widths) > 1 else widths[-1], widths[-1], padding=1)
        self.last = EqualisedConv(widths[-1], clusters, padding=1)

    def cast_maps(self, dtype: torch.dtype) -> None:
        """Compute maps of this dtype."""
        self.map_dtype = dtype

    def forward(self, condition: Tensor) -> Tensor:
        """Logits [N, K, S, S] float32 of pictures [N, 3, H, W] in [-1, 1]."""
        x = self.first(condition.to(self.map_dtype))
        maps = [x]
        for block in self.encoder:
            maps.append(block(maps[-1]))
        x = maps[-1]
        for number, layer in enumerate(self.decoder):
            x = F.interpolate(layer(x), scale_factor=2.0, mode="nearest")
            x = torch.cat([x, maps[-2 - number]], 1)
        logits: Tensor = self.last(self.join(x))
        return logits.float()
