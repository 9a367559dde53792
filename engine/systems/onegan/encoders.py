"""OneGAN's three encoders. Source: OneGAN supplementary, tables 5 to 7.

Table 6 repeats the heads of table 5, for child classes and style vectors. Here the shape encoder has heads for parent
classes and shape vectors, as table 1 says. Table 7 prints its first convolution bare. Here it has a norm and a leaky
ReLU like the others.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import register_dataclass
from torch.nn import functional as F

from .blocks import GluConv, NormedLinear, deep, initialise, trunk, weight_dtype
from .config import OneGanConfig

__all__ = ["BackgroundEncoder", "ChildEncoder", "Gaussian", "ParentEncoder"]


@dataclass(frozen=True)
class Gaussian:
    """Independent normal distributions as mu and log sigma^2, both float32 [N, length]."""

    mean: Tensor
    log_variance: Tensor

    @property
    def deviation(self) -> Tensor:
        """Sigma, [N, length]."""
        return (0.5 * self.log_variance).exp()

    def sample(self, random: torch.Generator | None = None) -> Tensor:
        """Draw mu + sigma * eps, differentiable in mu and sigma; eps comes from `random` or the device's generator."""
        noise = torch.randn(self.mean.shape, generator=random, device=self.mean.device, dtype=self.mean.dtype)
        return self.mean + self.deviation * noise


register_dataclass(Gaussian)


class GaussianHead(nn.Module):
    """Two linear layers that give mu and sigma from one feature."""

    def __init__(self, config: OneGanConfig, features: int, length: int) -> None:
        super().__init__()
        self.mean, self.sigma = nn.Linear(features, length), nn.Linear(features, length)
        self.softplus = config.sigma == "softplus"

    def forward(self, features: Tensor) -> Gaussian:
        mean, sigma = self.mean(features).float(), self.sigma(features).float()
        return Gaussian(mean, 2 * F.softplus(sigma).clamp_min(1e-6).log() if self.softplus else sigma)


class ChildEncoder(nn.Module):
    """E_c reads the style of an image: child class logits and the distribution of v_c."""

    def __init__(self, config: OneGanConfig) -> None:
        super().__init__()
        width = config.encoder_width
        self.trunk, self.deep = trunk(config, 3, width), deep(config, width)
        self.hidden = NormedLinear(config, 256 * width, 8 * width)
        self.classes = nn.Linear(8 * width, config.children)
        self.vector = GaussianHead(config, 8 * width, config.child_vector)
        initialise(self)

    def forward(self, images: Tensor) -> tuple[Tensor, Gaussian]:
        """Encode images [N, 3, R, R]: logits [N, children] and v_c's distribution."""
        x = self.hidden(self.deep(self.trunk(_entering(self, images))).flatten(1))
        return self.classes(x).float(), self.vector(x)


class ParentEncoder(nn.Module):
    """E_p reads the shape: parent class logits, the distributions of v_p and z, and the foreground's bypass."""

    def __init__(self, config: OneGanConfig) -> None:
        super().__init__()
        width = config.encoder_width
        self.trunk, self.deep = trunk(config, 3, width), deep(config, width)
        self.bypass = _bypass(config)
        self.hidden = NormedLinear(config, 256 * width, 8 * width)
        self.classes = nn.Linear(8 * width, config.parents)
        self.vector = GaussianHead(config, 8 * width, config.parent_vector)
        self.latent_hidden = NormedLinear(config, 256 * width, 8 * width)
        self.latent = GaussianHead(config, 8 * width, config.latent)
        initialise(self)

    def forward(self, images: Tensor) -> tuple[Tensor, Gaussian, Gaussian, Tensor]:
        """Encode images [N, 3, R, R]: logits [N, parents], v_p's and z's distributions, B_fg [N, 16 width, 16, 16]."""
        features = self.trunk(_entering(self, images))
        feature = self.deep(features).flatten(1)
        x, y = self.hidden(feature), self.latent_hidden(feature)
        return self.classes(x).float(), self.vector(x), self.latent(y), self.bypass(features)


class BackgroundEncoder(nn.Module):
    """E_bg turns an image and its mask into the background's bypass. It has no class head."""

    def __init__(self, config: OneGanConfig) -> None:
        super().__init__()
        self.masked = config.background_input == "masked"
        self.trunk = trunk(config, 4, config.encoder_width)
        self.bypass = _bypass(config)
        initialise(self)

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        """Encode images [N, 3, R, R] and masks [N, 1, R, R] to B_bg [N, 16 width, 16, 16]."""
        seen = images * (1 - mask) if self.masked else images
        y: Tensor = self.bypass(self.trunk(_entering(self, torch.cat([seen, mask.to(seen.dtype)], dim=1))))
        return y


def _bypass(config: OneGanConfig) -> nn.Sequential:
    """A bypass: features [N, 4 encoder_width, 16, 16] to a pre-image [N, 16 width, 16, 16]."""
    inputs, outputs = 4 * config.encoder_width, 16 * config.width
    if config.bypass == "flat":
        return nn.Sequential(GluConv(config, inputs, outputs, 16), GluConv(config, outputs, outputs, 16))
    return nn.Sequential(GluConv(config, inputs, outputs, 8, "down"), GluConv(config, outputs, outputs, 16, "up"))


def _entering(network: nn.Module, images: Tensor) -> Tensor:
    return images.to(weight_dtype(network), memory_format=torch.channels_last)
