"""OneGAN's networks and their two paths, with which it generates, segments, clusters, translates and removes objects.

Path G makes an image from codes. Path R encodes an image to codes and makes it again. Both are here in steps, from
which training and every task of inference are composed. No layer depends on training or evaluation mode.

Source: Benny, Wolf, "OneGAN: Simultaneous Unsupervised Learning of Conditional Image Generation, Foreground
Segmentation, and Fine-Grained Clustering", ECCV 2020, and its supplementary. The paper names the mixing of paths, the
bypasses and the heads; their wiring is this project's reading, and its choices are fields of the configuration.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.export import register_dataclass

from ....kernels import mask_composite
from .blocks import VectorTable, initialise
from .config import OneGanConfig
from .discriminators import BackgroundDiscriminator, Judgement, ObjectDiscriminator
from .encoders import BackgroundEncoder, ChildEncoder, Gaussian, ParentEncoder
from .generators import BackgroundGenerator, ForegroundGenerator

__all__ = [
    "BackgroundDiscriminator",
    "Codes",
    "Composite",
    "Encoding",
    "Gaussian",
    "Judgement",
    "ObjectDiscriminator",
    "OneGanConfig",
    "OneGanNetworks",
]


@dataclass(frozen=True)
class Codes:
    """The generators' inputs: the vectors v_c, v_p and v_bg and the pose code z, each [N, length]."""

    child: Tensor
    parent: Tensor
    background: Tensor
    latent: Tensor


@dataclass(frozen=True)
class Encoding:
    """The outputs of E_c and E_p for images: class logits [N, classes], distributions, and the bypass B_fg."""

    child_logits: Tensor
    parent_logits: Tensor
    child: Gaussian
    parent: Gaussian
    latent: Gaussian
    bypass: Tensor

    @property
    def child_probabilities(self) -> Tensor:
        """The probabilities of the child classes, [N, children]."""
        return self.child_logits.softmax(dim=1)

    @property
    def parent_probabilities(self) -> Tensor:
        """The probabilities of the parent classes, [N, parents]."""
        return self.parent_logits.softmax(dim=1)


@dataclass(frozen=True)
class Composite:
    """Images in [-1, 1] composed of foreground and background, with their parts and codes; float32 or wider.

    Args:
        image: background (1 - mask) + foreground mask, [N, 3, R, R].
        foreground, background: [N, 3, R, R].
        mask: the foreground's share of each pixel, [N, 1, R, R].
        codes: the images' codes.
        encoding: the encoding of the images that path R made again; None in path G.
    """

    image: Tensor
    foreground: Tensor
    background: Tensor
    mask: Tensor
    codes: Codes
    encoding: Encoding | None = None


for _record in (Codes, Encoding, Composite):
    register_dataclass(_record)


class OneGanNetworks(nn.Module):
    """Two generators, three encoders and three embedding tables, and the paths through them.

    A call of the module is path G from classes to finished images, in the fewest passes over memory.
    """

    def __init__(self, config: OneGanConfig) -> None:
        super().__init__()
        self.config = config
        self.child_vectors = VectorTable(config.children, config.child_vector, bias=config.table_bias)
        self.parent_vectors = VectorTable(config.parents, config.parent_vector, bias=config.table_bias)
        self.background_vectors = VectorTable(config.backgrounds, config.background_vector, bias=config.table_bias)
        for table in (self.child_vectors, self.parent_vectors, self.background_vectors):
            initialise(table)
        self.foreground = ForegroundGenerator(config)
        self.background = BackgroundGenerator(config)
        self.child_encoder = ChildEncoder(config)
        self.parent_encoder = ParentEncoder(config)
        self.background_encoder = BackgroundEncoder(config)

    def forward(
        self,
        child: Tensor,
        parent: Tensor,
        latent: Tensor,
        background: Tensor | None = None,
        *,
        output: Literal["float", "uint8"] = "float",
    ) -> Tensor:
        """Generate finished images.

        Args:
            child, parent, latent, background: as in `codes`.
            output: "float" or "uint8".
        Returns:
            [N, 3, R, R] in [-1, 1], equal to `generate(codes(...)).image` except for rounding; or bytes [N, R, R, 3].
        """
        codes = self.codes(child, parent, latent, background)
        foreground, mask = self.foreground(self._foreground_image(codes), codes.parent, codes.child)
        return mask_composite(foreground, self.background(self._background_image(codes)), mask, output=output)

    def draw(self, count: int, random: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Draw classes and pose codes as training does: children [N], parents [N], latents [N, latent]."""
        config, device = self.config, random.device
        child = torch.randint(config.children, (count,), generator=random, device=device)
        parent = (
            child * config.parents // config.children
            if config.tie_parents
            else torch.randint(config.parents, (count,), generator=random, device=device)
        )
        return child, parent, torch.randn(count, config.latent, generator=random, device=device)

    def draw_mix(self, count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw mix factors of foreground and background as training does, uniform on [0, 1], [N] each."""
        first = torch.rand(count, generator=random, device=random.device)
        if self.config.mix == "shared":
            return first, first
        return first, torch.rand(count, generator=random, device=random.device)

    def codes(self, child: Tensor, parent: Tensor, latent: Tensor, background: Tensor | None = None) -> Codes:
        """The codes of path G from classes.

        Args:
            child, parent, background: classes, [N] int64 or probabilities [N, classes]. If no background is given it is
                the parent's, or the child's if the configuration says so.
            latent: pose codes, [N, latent].
        """
        if background is None:
            background = parent if self.config.background_classes == "parent" else child
        return Codes(
            self.child_vectors(child), self.parent_vectors(parent), self.background_vectors(background), latent
        )

    def generate(self, codes: Codes) -> Composite:
        """Path G: make images from codes."""
        foreground, mask = self.foreground(self._foreground_image(codes), codes.parent, codes.child)
        background = self.background(self._background_image(codes))
        return _composite(_finished(foreground).tanh(), _finished(background).tanh(), _finished(mask).sigmoid(), codes)

    def encode(self, images: Tensor) -> Encoding:
        """Step 1 of path R: encode images [N, 3, R, R] in [-1, 1] with E_c and E_p."""
        child_logits, child = self.child_encoder(images)
        parent_logits, parent, latent, bypass = self.parent_encoder(images)
        return Encoding(child_logits, parent_logits, child, parent, latent, bypass)

    def codes_of(self, encoding: Encoding, *, sample: bool = False, random: torch.Generator | None = None) -> Codes:
        """Step 2 of path R: the codes of an encoding.

        Args:
            encoding: the encoding of images.
            sample: draw from the distributions, as in training, instead of taking their means.
            random: the generator of random numbers to draw with.
        """

        def value(distribution: Gaussian) -> Tensor:
            return distribution.sample(random) if sample else distribution.mean

        child, parent = encoding.child_probabilities, encoding.parent_probabilities
        codes = self.codes(child, parent, value(encoding.latent))
        if self.config.reconstruction_codes == "classes":
            return codes
        return Codes(value(encoding.child), value(encoding.parent), codes.background, codes.latent)

    def decode(
        self,
        images: Tensor,
        encoding: Encoding,
        codes: Codes,
        *,
        beta: Tensor | float = 1.0,
        background_beta: Tensor | float | None = None,
        mask: Tensor | None = None,
    ) -> Composite:
        """Steps 3 to 5 of path R: make foreground and mask, then the background with that mask, then the composite.

        Both pre-images are beta B + (1 - beta) A, with a bypass B and a generator's pre-image A. A beta of 1 is pure
        autoencoding, 0 is generation from the codes alone.

        Args:
            images: [N, 3, R, R], the images whose background is made; they may differ from the foreground's images.
            encoding: the encoding of the images whose foreground is made.
            codes: the codes of this encoding, or others.
            beta: [N], or one number; if it is 0 or 1 the other pre-image is not computed.
            background_beta: the beta of the background; None takes `beta`.
            mask: [N, 1, R, R] for the background encoder; None takes the mask that is made here.
        """
        pre_image = _mixed(beta, lambda: encoding.bypass, lambda: self._foreground_image(codes))
        raw, raw_mask = self.foreground(pre_image, codes.parent, codes.child)
        made = _finished(raw_mask).sigmoid()
        seen = made if mask is None else mask
        pre_image = _mixed(
            beta if background_beta is None else background_beta,
            lambda: self.background_encoder(images, seen),
            lambda: self._background_image(codes),
        )
        background = _finished(self.background(pre_image)).tanh()
        return _composite(_finished(raw).tanh(), background, made, codes, encoding)

    def reconstruct(
        self,
        images: Tensor,
        *,
        beta: Tensor | float = 1.0,
        background_beta: Tensor | float | None = None,
        sample: bool = False,
        random: torch.Generator | None = None,
    ) -> Composite:
        """Run all of path R on images [N, 3, R, R] in [-1, 1]; other arguments are those of `codes_of` and `decode`."""
        encoding = self.encode(images)
        codes = self.codes_of(encoding, sample=sample, random=random)
        return self.decode(images, encoding, codes, beta=beta, background_beta=background_beta)

    def _foreground_image(self, codes: Codes) -> Tensor:
        return self.foreground.pre_image(codes.parent, codes.latent)

    def _background_image(self, codes: Codes) -> Tensor:
        return self.background.pre_image(codes.background, codes.latent)


def _mixed(beta: Tensor | float, bypass: Callable[[], Tensor], generated: Callable[[], Tensor]) -> Tensor:
    if not isinstance(beta, Tensor):
        if beta in (0, 1):
            return bypass() if beta else generated()
        return torch.lerp(generated(), bypass(), beta)
    a, b = generated(), bypass()
    return torch.lerp(a, b, beta.to(a.dtype)[:, None, None, None])


def _finished(x: Tensor) -> Tensor:
    """Cast a head's output to float32 or wider for losses and later stages, even if autocast computed in bfloat16."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _composite(
    foreground: Tensor, background: Tensor, mask: Tensor, codes: Codes, encoding: Encoding | None = None
) -> Composite:
    image = mask_composite(foreground, background, mask, logits=False)
    return Composite(image, foreground, background, mask, codes, encoding)
