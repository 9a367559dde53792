"""Generator, centroids, rearranger and mapper, and the ways from latents and conditions to images."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..stylegan2.generator import Features, Generator
from .config import RearrangerConfig
from .mapper import mapper_of
from .masks import labels_of
from .rearranging import Rearranger

__all__ = ["RearrangerNetworks", "Source"]


@dataclass(frozen=True)
class Source:
    """The half-made image that features are taken from.

    Attributes:
        styles: style vectors [N, L, w_dim], which the second half of the generator uses too.
        features: what the first half gives.
    """

    styles: Tensor
    features: Features


class RearrangerNetworks(nn.Module):
    """All networks of a rearranger.

    Args:
        config: their widths.
        generator: a generator of the configuration; None builds one.
        mapper: the mapper; None builds it if the configuration has one.
    """

    centroids: Tensor

    def __init__(
        self, config: RearrangerConfig, generator: Generator | None = None, mapper: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.generator = Generator(config.generator) if generator is None else generator
        self.register_buffer("centroids", torch.zeros(config.clusters, config.features))
        self.rearranger = Rearranger(config)
        self.mapper = mapper_of(config) if mapper is None and config.mapper is not None else mapper

    def source(self, styles: Tensor) -> Source:
        """The first half of the generator, with its stored noise, for style vectors [N, L, w_dim]."""
        config = self.config
        return Source(styles, self.generator.begin(styles, side=config.split, after=config.tensor))

    def mask(self, source: Source) -> Tensor:
        """The proxy mask of features, int64 [N, S, S]."""
        return self.labels(source.features.map)

    def labels(self, features: Tensor) -> Tensor:
        """The labels of maps [N, C, S, S], int64 [N, S, S]."""
        return labels_of(features, self.centroids, self.config.metric)

    def moved(self, source: Source, mask: Tensor) -> Features:
        """Features of a mask's layout; the mask is labels [N, S, S], or probabilities [N, K, S, S]."""
        made: Features = self.rearranger(source.features, mask)
        return made

    def image(self, source: Source, features: Features | None = None) -> Tensor:
        """The second half: images [N, 3, R, R], of the source's styles and of its own features unless others are given.

        Rearranged features and the source's have one batch.
        """
        given = source.features if features is None else features
        wanted = self.generator.map_dtype
        given = Features(given.map.to(wanted), given.rgb, given.after)
        return self.generator.finish(given, source.styles)

    def forward(self, styles: Tensor, mask: Tensor) -> Tensor:
        """Images of style vectors [N, L, w_dim] in the layout of masks; arguments as of the parts."""
        source = self.source(styles)
        return self.image(source, self.moved(source, mask))
