"""COCO-GAN: one generator turns a latent vector and a patch coordinate into one micro patch.

Source: Lin, Chang, Chen, Juan, Wei, Chen, "COCO-GAN: Generation by Parts via Conditional Coordinating", ICCV 2019.
Where the paper and its reference implementation differ, the paper is the default; `reference_quirks` restores the code.
"""

import math
from typing import Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from .coordinates import Lattice, Topology

__all__ = ["CocoGanConfig", "ConditionalNorm", "Discriminator", "Generator", "Head", "plain_state"]


class CocoGanConfig(BaseModel):
    """Everything that fixes the shapes and the arithmetic of a COCO-GAN; defaults are the paper's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    topology: Topology = Field("plane", description="Which axes are cyclic: none, the horizontal one, both.")
    rows: int = Field(4, ge=1, le=4096, description="Micro patches along the height of the image.")
    columns: int = Field(4, ge=1, le=4096, description="Micro patches along the width of the image.")
    span: int = Field(2, ge=2, le=64, description="Micro patches along each side of a macro patch.")
    octaves: int = Field(1, ge=1, le=16, description="Frequencies of place and angle that condition G; 1 as published.")
    dense: bool = Field(
        False,
        description="Give every row and column of G's maps its own place, in all octaves; norms and stem then see the "
        "first octave alone, and the stem is the same all over a patch. Not published.",
    )
    patch: int = Field(32, description="Side of a micro patch in pixels: 4, 8, ..., 256.")
    latent: int = Field(128, ge=1, le=4096, description="Length of the latent vector, uniform on [-1, 1].")
    channels: int = Field(3, ge=1, le=4, description="Image channels.")
    width: int = Field(64, ge=1, le=512, description="Base width of the generator (ngf).")
    critic_width: int = Field(64, ge=1, le=512, description="Base width of the discriminator (ndf).")
    head_width: int = Field(128, ge=1, le=4096, description="Hidden width of the coordinate and the latent head.")
    extra_blocks: int = Field(0, ge=0, le=8, description="Generator blocks at full patch size, after the others.")
    padding: Literal["zeros", "replicate"] = Field(
        "zeros", description="Padding of the generator's convolutions; zeros darken patch borders, replicate does not."
    )
    condition_std: float | None = Field(
        None, gt=0, description="Initial std of the conditional norm's weights; none means Glorot-uniform as published."
    )
    condition_scale: float = Field(0.0, description="Initial bias of the conditional norm's scale; 0 as published.")
    latent_head: bool = Field(False, description="Whether the latent head Q exists, for patch-guided generation.")
    reference_quirks: bool = Field(
        False,
        description="Follow the reference code where it leaves the paper: the conditional norm divides by "
        "sqrt(var^2 + eps), "
        "the gradient penalty ignores coordinates and takes its norm over the height only.",
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.patch not in (4, 8, 16, 32, 64, 128, 256):
            raise ValueError(f"patch must be a power of two from 4 to 256, not {self.patch}")
        if self.macro > 1024:
            raise ValueError(f"a macro patch of span {self.span} x {self.patch} pixels exceeds 1024 pixels")
        halvings = 2 ** (len(self.critic_multipliers) - 1)
        if self.macro % halvings:
            raise ValueError(
                f"the critic halves a macro patch to 1/{halvings}, so {self.macro} pixels must divide by that"
            )
        self.lattice  # noqa: B018  refuses impossible lattices with its own sentence
        return self

    @property
    def lattice(self) -> Lattice:
        """The lattice of one full image."""
        return Lattice(self.topology, self.rows, self.columns, self.span, self.octaves)

    @property
    def conditions(self) -> int:
        """Length of what stem and norms are conditioned on: latent and coordinate, or its first octave if `dense`."""
        lattice = self.lattice
        return self.latent + (lattice.macro_dimensions if self.dense else lattice.micro_dimensions)

    @property
    def macro(self) -> int:
        """Side of a macro patch in pixels."""
        return self.patch * self.span

    @property
    def resolution(self) -> tuple[int, int]:
        """Height and width of the full image (of one turn, where an axis is cyclic) in pixels."""
        return self.rows * self.patch, self.columns * self.patch

    @property
    def generator_blocks(self) -> list[tuple[int, bool]]:
        """(channels, up-samples) of every generator block, in order."""
        ups = int(math.log2(self.patch)) - 1
        multipliers = [8, 4, 2] + [1] * (ups + self.extra_blocks)
        return [(multipliers[i] * self.width, i < ups) for i in range(ups + self.extra_blocks)]

    @property
    def critic_multipliers(self) -> list[int]:
        """Widths of the discriminator's blocks in multiples of `critic_width`."""
        blocks = int(math.log2(self.macro)) - 1
        if blocks <= 4:
            return [1, 4, 8, 8][4 - blocks :]
        return [1] * (blocks - 5) + [1, 2, 4, 8, 8]


class ConditionalNorm(nn.Module):
    """Batch norm whose scale and shift are linear in the condition.

    y = gamma(c) (x - mean) / sqrt(var + eps) + beta(c), statistics per channel over [N, H, W]; running statistics in
    evaluation. With `quirk` the divisor is sqrt(var^2 + eps), as in the reference implementation.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, config: CocoGanConfig, channels: int) -> None:
        super().__init__()
        self.scale = nn.Linear(config.conditions, channels)
        self.shift = nn.Linear(config.conditions, channels)
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.momentum, self.eps, self.quirk = 0.01, 1e-5, config.reference_quirks
        for layer in (self.scale, self.shift):
            if config.condition_std is None:
                nn.init.xavier_uniform_(layer.weight)
            else:
                nn.init.normal_(layer.weight, std=config.condition_std)
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.scale.bias, config.condition_scale)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Normalise x [N, C, H, W] under conditions [N, K], or more rows: those beyond N are padding."""
        # Conditions stay in float32 under autocast: bfloat16 cannot tell neighbouring angles apart.
        with torch.autocast(x.device.type, enabled=False):
            scale = self.scale(condition)[: len(x), :, None, None]
            shift = self.shift(condition)[: len(x), :, None, None]
        if not self.training:
            # Running statistics make the whole layer one multiplication and one addition.
            gain = self._inverse_deviation(self.running_var)[:, None, None]
            scale = scale * gain
            shift = shift - scale * self.running_mean[:, None, None]
            return torch.addcmul(shift.to(x.dtype), x, scale.to(x.dtype))
        if self.quirk:
            var, mean = torch.var_mean(x.float(), dim=(0, 2, 3), correction=0)
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(var, self.momentum)
            x = (x - mean[:, None, None]) * self._inverse_deviation(var)[:, None, None]
        else:
            x = F.batch_norm(x, self.running_mean, self.running_var, None, None, True, self.momentum, self.eps)
        return torch.addcmul(shift.to(x.dtype), x, scale.to(x.dtype))

    def _inverse_deviation(self, var: Tensor) -> Tensor:
        return torch.rsqrt((var * var if self.quirk else var) + self.eps)


class PaddedConv(nn.Conv2d):
    """3x3 convolution that keeps the size, padded with zeros or by repeating the border."""

    def __init__(self, inputs: int, outputs: int, padding: Literal["zeros", "replicate"]) -> None:
        super().__init__(inputs, outputs, 3, padding=1 if padding == "zeros" else 0)
        self.replicate = padding == "replicate"

    def forward(self, x: Tensor) -> Tensor:
        """Convolve [N, C, H, W] to [N, C', H, W]."""
        if self.replicate:
            # Autocast would widen the map to float32 here, a quarter of a training step's time on a CPU.
            with torch.autocast(x.device.type, enabled=False):
                x = F.pad(x, (1, 1, 1, 1), mode="replicate")
        return super().forward(x)


class Place(nn.Module):
    """What the cells of a map add to it, by their own place in the picture.

    y[a, b] = W phi(row a) + W' phi(column b) + W'' (phi(row a) x phi(column b)), phi the cosines and sines of the place in
    the octaves whose wave is at least four cells long; the product of a row's and a column's wave of about one length is a
    pair of diagonal waves. They follow from the micro coordinate by the addition theorems, so equal places of
    overlapping patches get equal values. Weights start as 1 / frequency, the spectrum of natural images.

    Args:
        config: gives the lattice.
        channels: of the map.
        side: of the map in cells.
    Source: this project, after the coordinate maps of InfinityGAN (Lin et al. 2022).
    """

    def __init__(self, config: CocoGanConfig, channels: int, side: int) -> None:
        super().__init__()
        self.side, self.axes = side, config.lattice.axes
        # Length of the first octave's wave in patches, and how many octaves this map can show.
        self.waves = [axis.patches if axis.cyclic else 2 * (axis.patches - 1) for axis in self.axes]
        self.octaves = [
            min(max(0, int(math.log2(side * wave / 4)) + 1), axis.octaves - (not axis.cyclic))
            for axis, wave in zip(self.axes, self.waves, strict=True)
        ]
        # Row octave j and column octave k have waves of about one length where j - k is this.
        lead = round(math.log2(self.waves[0] / self.waves[1]))
        self.pairs = [(k + lead, k) for k in range(self.octaves[1]) if 0 <= k + lead < self.octaves[0]]
        open_axes = [not axis.cyclic for axis in self.axes]
        self.rows, self.columns = (
            nn.Linear(2 * octaves + is_open, channels) for octaves, is_open in zip(self.octaves, open_axes, strict=True)
        )
        self.diagonals = nn.Linear(4 * len(self.pairs), channels, bias=False) if self.pairs else None
        frequencies = [2.0 ** torch.arange(octaves) * max(self.waves) / wave
                       for octaves, wave in zip(self.octaves, self.waves, strict=True)]  # fmt: skip
        for layer, frequency, is_open in zip((self.rows, self.columns), frequencies, open_axes, strict=True):
            scale = torch.cat([frequency.repeat(2), torch.ones(int(is_open))])
            nn.init.normal_(layer.weight)
            nn.init.zeros_(layer.bias)
            layer.weight.data /= scale
        if self.diagonals is not None:
            nn.init.normal_(self.diagonals.weight)
            self.diagonals.weight.data /= frequencies[1][[k for _, k in self.pairs]].repeat(4)

    def forward(self, coordinates: Tensor) -> Tensor:
        """Micro coordinates [N, micro_dimensions] to [N, channels, side, side]."""
        vertical, horizontal = coordinates.split([axis.micro_dimensions for axis in self.axes], dim=1)
        rows, columns = self._waves(vertical, 0), self._waves(horizontal, 1)
        y = self.rows(self._flat(rows, vertical, 0)).transpose(1, 2)[:, :, :, None]
        y = y + self.columns(self._flat(columns, horizontal, 1)).transpose(1, 2)[:, :, None, :]
        if self.diagonals is not None:
            down, across = (list(indices) for indices in zip(*self.pairs, strict=True))
            product = rows[:, :, None, down, :, None] * columns[:, None, :, across, None, :]  # [N, a, b, K, 2, 2]
            y = y + self.diagonals(product.permute(0, 1, 2, 4, 5, 3).flatten(3)).permute(0, 3, 1, 2)
        return y

    def _waves(self, coordinate: Tensor, which: int) -> Tensor:
        """Cosines and sines of the place of every cell along an axis, [N, side, octaves, 2]."""
        octaves = self.octaves[which]
        offset = (torch.arange(self.side, device=coordinate.device) + 0.5) / self.side  # in patches
        turn = offset[:, None] * (2 * math.pi / self.waves[which]) * 2.0 ** torch.arange(octaves, device=offset.device)
        first = 0 if self.axes[which].cyclic else 1
        waves = coordinate[:, first : first + 2 * octaves].unflatten(1, (octaves, 2))[:, None]  # [N, 1, octaves, 2]
        cosine, sine = waves[..., 0], waves[..., 1]
        turned = cosine * turn.cos() - sine * turn.sin(), sine * turn.cos() + cosine * turn.sin()
        return torch.stack(turned, dim=-1)

    def _flat(self, waves: Tensor, coordinate: Tensor, which: int) -> Tensor:
        """The waves of an axis, and on an open one the place itself, [N, side, features]."""
        features = waves.transpose(2, 3).flatten(2)
        if self.axes[which].cyclic:
            return features
        offset = (torch.arange(self.side, device=coordinate.device) + 0.5) / self.side
        place = coordinate[:, :1] + 2 * offset / (self.axes[which].patches - 1)
        return torch.cat([features, place[:, :, None]], dim=2)


class GeneratorBlock(nn.Module):
    """Residual block: norm, ReLU, [nearest x2], conv, norm, ReLU, conv; shortcut [nearest x2], 1x1 conv, always."""

    def __init__(self, config: CocoGanConfig, inputs: int, outputs: int, up: bool, side: int) -> None:
        super().__init__()
        self.up = up
        self.place = Place(config, inputs, side) if config.dense else None
        self.norm1 = ConditionalNorm(config, inputs)
        self.conv1 = PaddedConv(inputs, outputs, config.padding)
        self.norm2 = ConditionalNorm(config, outputs)
        self.conv2 = PaddedConv(outputs, outputs, config.padding)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, condition: Tensor, coordinates: Tensor) -> Tensor:
        y = _activate(self.norm1(x, condition), self.place, coordinates)
        # A 1x1 convolution and nearest up-sampling commute exactly; this order does a quarter of the work.
        x = self.shortcut(x)
        if self.up:
            x, y = _nearest_x2(x), _nearest_x2(y)
        y = self.conv1(y)
        y = F.relu(self.norm2(y, condition), inplace=True)
        return x + self.conv2(y)


class Generator(nn.Module):
    """G(z, c''): latent vector and micro coordinate to one micro patch.

    Args:
        config: sizes; `generator_blocks` lists the stack.
        spectral: keep spectral norm on all convolutions and linear layers (training). False builds the inference form,
            whose weights are the normalised ones.
    Source: COCO-GAN, section 3 and supplementary; ResNet generator of Miyato & Koyama (2018), 2x2 start.
    """

    def __init__(self, config: CocoGanConfig, *, spectral: bool = True) -> None:
        super().__init__()
        self.config = config
        widths = [16 * config.width] + [channels for channels, _ in config.generator_blocks]
        self.stem = nn.Linear(config.conditions, widths[0] if config.dense else 4 * widths[0])
        self.blocks, side = nn.ModuleList(), 2
        for inputs, (outputs, up) in zip(widths, config.generator_blocks, strict=False):
            self.blocks.append(GeneratorBlock(config, inputs, outputs, up, side))
            side *= 1 + up
        self.norm = nn.BatchNorm2d(widths[-1], eps=1e-5, momentum=0.1)
        self.to_image = PaddedConv(widths[-1], config.channels, config.padding)
        _initialise(self, spectral=spectral)

    def forward(self, latent: Tensor, coordinates: Tensor) -> Tensor:
        """Generate micro patches.

        Args:
            latent: [N, latent], uniform on [-1, 1].
            coordinates: [N, micro_dimensions] of the lattice.
        Returns:
            [N, channels, patch, patch] in [-1, 1].
        """
        condition = torch.cat([latent, self._first_octave(coordinates)], dim=1)
        if not self.training:
            # CPU matrix products round differently below 8 rows; padded, a patch has the same bits in any batch.
            condition = F.pad(condition, (0, 0, 0, max(0, 8 - len(condition))))
        with torch.autocast(condition.device.type, enabled=False):
            x = self.stem(condition)[: len(latent)]
            x = x[:, :, None, None].expand(-1, -1, 2, 2) if self.config.dense else x.unflatten(1, (-1, 2, 2))
        assert self.to_image.bias is not None
        x = x.to(self.to_image.bias.dtype, memory_format=torch.channels_last)
        for block in self.blocks:
            x = block(x, condition, coordinates)
        return torch.tanh(self.to_image(F.relu(self.norm(x), inplace=True)))

    def _first_octave(self, coordinates: Tensor) -> Tensor:
        if not self.config.dense:
            return coordinates
        parts = coordinates.split([axis.micro_dimensions for axis in self.config.lattice.axes], dim=1)
        axes = self.config.lattice.axes
        return torch.cat([part[:, : axis.macro_dimensions] for part, axis in zip(parts, axes, strict=True)], dim=1)

    def cast_convolutions(self, dtype: torch.dtype) -> Self:
        """Run the convolutions, nearly all of the work, in `dtype`; conditions and norms stay in float32."""
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                part.to(dtype)
        return self


class DiscriminatorBlock(nn.Module):
    """Residual block: [ReLU], conv, ReLU, conv, [2x2 mean]; shortcut [2x2 mean], 1x1 conv, always."""

    def __init__(self, inputs: int, outputs: int, *, first: bool, down: bool) -> None:
        super().__init__()
        self.first, self.down = first, down
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x if self.first else F.relu(x))
        y = self.conv2(F.relu(y, inplace=True))
        if self.down:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        return self.shortcut(x) + y


class Discriminator(nn.Module):
    """D(s, c'): a macro patch and its coordinate to one critic value, with the feature that the heads read.

    D = linear(h) + <h, embed(c')>, h = the sum over space of the last block's ReLU (projection discriminator).
    Source: COCO-GAN; Miyato & Koyama (2018).
    """

    def __init__(self, config: CocoGanConfig, *, spectral: bool = True) -> None:
        super().__init__()
        widths = [config.channels] + [m * config.critic_width for m in config.critic_multipliers]
        last = len(widths) - 2
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(widths[i], widths[i + 1], first=i == 0, down=i != last) for i in range(len(widths) - 1)
        )
        self.critic = nn.Linear(widths[-1], 1)
        self.embed = nn.Linear(config.lattice.macro_dimensions, widths[-1])
        self.features = widths[-1]
        _initialise(self, spectral=spectral)

    def forward(self, macro: Tensor, coordinates: Tensor | None) -> tuple[Tensor, Tensor]:
        """Judge macro patches.

        Args:
            macro: [N, channels, K, K] in [-1, 1].
            coordinates: [N, macro_dimensions] of the lattice; None drops the projection term.
        Returns:
            critic value [N] and feature h [N, features], both float32.
        """
        x = macro.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            x = block(x)
        h = F.relu(x).float().sum(dim=(2, 3))
        value = self.critic(h).squeeze(1)
        if coordinates is not None:
            value = value + (h * self.embed(coordinates)).sum(dim=1)
        return value.float(), h


class Head(nn.Module):
    """A small head on the critic's feature: linear, batch norm, leaky ReLU 0.2, linear, tanh.

    As head A it predicts the macro coordinate, as head Q the latent vector. Source: COCO-GAN, supplementary.
    """

    def __init__(self, features: int, outputs: int, width: int = 128, *, spectral: bool = True) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, width)
        self.norm = nn.BatchNorm1d(width, eps=1e-5, momentum=0.1)
        self.output = nn.Linear(width, outputs)
        _initialise(self, spectral=spectral)

    def forward(self, feature: Tensor) -> Tensor:
        """Predict [N, outputs] in [-1, 1] from features [N, features]."""
        x = F.leaky_relu(self.norm(self.hidden(feature)), 0.2)
        return torch.tanh(self.output(x))


def plain_state(module: nn.Module) -> dict[str, Tensor]:
    """The module's state with every spectral norm folded into its weight: W / sigma(W) under the plain name."""
    state: dict[str, Tensor] = {}
    for prefix, part in module.named_modules():
        path = f"{prefix}." if prefix else ""
        if isinstance(part, parametrize.ParametrizationList) or ".parametrizations." in f".{path}":
            continue
        for name, tensor in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
            state[path + name] = tensor.detach()
        if parametrize.is_parametrized(part, "weight"):
            state[path + "weight"] = getattr(part, "weight").detach()  # noqa: B009  a computed property
    return state


def _activate(x: Tensor, place: Place | None, coordinates: Tensor) -> Tensor:
    """ReLU, of the map alone or of the map plus what its rows and columns add."""
    if place is not None:
        with torch.autocast(x.device.type, enabled=False):
            x = x + place(coordinates).to(x.dtype)
    return F.relu(x, inplace=True)


def _nearest_x2(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def _initialise(module: nn.Module, *, spectral: bool) -> None:
    """He-normal convolutions, LeCun-normal linear layers (both truncated), zero biases; then spectral norm."""
    for part in list(module.modules()):
        if isinstance(part, ConditionalNorm | Place):  # have their own start, and no spectral norm
            continue
        for layer in part.children():
            if not isinstance(layer, nn.Conv2d | nn.Linear):
                continue
            gain = 2.0 if isinstance(layer, nn.Conv2d) else 1.0
            nn.init.trunc_normal_(layer.weight, std=math.sqrt(gain / layer.weight[0].numel()))
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
            if spectral:
                spectral_norm(layer, eps=1e-12)
