"""COCO-GAN's generator, which turns a latent vector and a patch coordinate into one micro patch.

Source: Lin, Chang, Chen, Juan, Wei, Chen, "COCO-GAN: Generation by Parts via Conditional Coordinating", ICCV 2019.
If the paper and its reference code differ, the paper is followed; `reference_quirks` follows the code.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....kernels import affine_relu
from ...layers.batch_invariance import BatchInvariantLinear
from ...layers.batch_parts import joined, part_sizes, parts_of
from ...layers.convolutions import PaddedConv, UpConv, trim
from ...layers.spectral import initialise
from .config import CocoGanConfig
from .place import Place

__all__ = ["ConditionalNorm", "Generator"]


# In smaller batches a patch's last bits depend on the batch, because oneDNN takes other code for 1x1 convolutions of
# fewer than 16 patches, and for all other convolutions of a single patch (measured with 1 and 2 threads).
_SMALLEST_CPU_BATCH = 16
# Dense maps are larger, so fewer patches suffice. But their unpadded convolutions round the rows beyond the last block
# of 16 cells differently. Four maps always fill whole blocks, because their sides are even.
_DENSE_CPU_STEP = 4


class ConditionalNorm(nn.Module):
    """Batch norm whose scale and shift are linear in the condition.

    y = gamma(c) (x - mean) / sqrt(var + eps) + beta(c), where mean and var are those of a channel over [N, H, W], in
    evaluation the running ones. With `quirk` the divisor is sqrt(var^2 + eps), as in the reference code.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, config: CocoGanConfig, channels: int) -> None:
        super().__init__()
        self.scale = BatchInvariantLinear(config.conditions, channels)
        self.shift = BatchInvariantLinear(config.conditions, channels)
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
        """Normalise x [N, C, H, W] under conditions [N, K]."""
        scale, shift = (t[:, :, None, None] for t in self.factors(condition))
        return torch.addcmul(shift.to(x.dtype), self._standardised(x), scale.to(x.dtype))

    def factors(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift [N, C] under conditions [N, K]; in evaluation with the running statistics folded in."""
        # Conditions stay in float32 under autocast, because bfloat16 cannot tell neighbouring angles apart.
        with torch.autocast(condition.device.type, enabled=False):
            scale, shift = self.scale(condition), self.shift(condition)
        if self.training:
            return scale, shift
        scale = scale * self._inverse_deviation(self.running_var)
        return scale, shift - scale * self.running_mean

    def relu(self, x: Tensor, condition: Tensor) -> Tensor:
        """Normalise and rectify; scale, shift and ReLU take one pass."""
        return affine_relu(self._standardised(x), *self.factors(condition))

    def _standardised(self, x: Tensor) -> Tensor:
        """Subtract the batch's mean and divide by its deviation; in evaluation both are in the factors."""
        if not self.training:
            return x
        if not self.quirk:
            return F.batch_norm(x, self.running_mean, self.running_var, None, None, True, self.momentum, self.eps)
        var, mean = torch.var_mean(x.float(), dim=(0, 2, 3), correction=0)
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var, self.momentum)
        return (x - mean[:, None, None]) * self._inverse_deviation(var)[:, None, None]

    def _inverse_deviation(self, var: Tensor) -> Tensor:
        return torch.rsqrt((var * var if self.quirk else var) + self.eps)


class GeneratorBlock(nn.Module):
    """Residual block: norm, ReLU, [nearest x2], conv, norm, ReLU, conv.

    Every block has the shortcut: [nearest x2], 1x1 conv. With dense places the map has a margin of cells around the
    patch, which the unpadded convolutions use up.

    Args:
        config: the generator's configuration.
        inputs, outputs: channels.
        up: whether the block doubles the side.
        side: the patch's side in the block's input, in cells.
        margin: cells around the patch in the block's output.
    """

    def __init__(self, config: CocoGanConfig, inputs: int, outputs: int, up: bool, side: int, margin: int) -> None:
        super().__init__()
        self.up = up
        self.margin = (margin + 2 + up) // (1 + up)  # cells around the patch in the input
        self.spare = (self.margin * (1 + up) - margin - 2) if config.dense else 0
        self.place = Place(config.lattice, config.latent, inputs, side) if config.dense else None
        self.norm1 = ConditionalNorm(config, inputs)
        self.conv1 = (
            UpConv(inputs, outputs, config.padding, spare=self.spare)
            if up
            else PaddedConv(inputs, outputs, config.padding)
        )
        self.norm2 = ConditionalNorm(config, outputs)
        self.conv2 = PaddedConv(outputs, outputs, config.padding)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, condition: Tensor, coordinates: Tensor, block: tuple[int, int]) -> Tensor:
        """Run on maps [N, C, S, T] with conditions [N, K]; the block's first micro patch is at `coordinates`."""
        if self.place is None:
            y = self.norm1.relu(x, condition)
        else:
            y = self.norm1(x, condition)
            with torch.autocast(x.device.type, enabled=False):
                y = y + self.place(coordinates, condition, block, self.margin).to(y.dtype)
            y = F.relu(y, inplace=True)
        # A 1x1 convolution and nearest x2 commute exactly; this order does a quarter of the work.
        x = self.shortcut(x)
        if self.up:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        if self.place is not None:
            x = trim(x, self.spare + 2)
        y = self.conv1(y)
        y = self.norm2.relu(y, condition)
        return x + self.conv2(y)


class Generator(nn.Module):
    """G(z, c''): turns a latent vector and a micro coordinate into one micro patch.

    Args:
        config: the sizes; `generator_blocks` lists the blocks.
        spectral: keep spectral norm on all convolutions and linear layers, for training. False builds the networks for
            inference, whose weights are already normalised.
    Source: COCO-GAN, section 3 and supplementary; ResNet generator of Miyato & Koyama (2018), with a 2x2 start.
    """

    def __init__(self, config: CocoGanConfig, *, spectral: bool = True) -> None:
        super().__init__()
        self.config = config
        widths = [16 * config.width] + [channels for channels, _ in config.generator_blocks]
        self.stem = BatchInvariantLinear(config.conditions, widths[0] if config.dense else 4 * widths[0])
        blocks, side, margin = [], config.patch, 1
        # From the image back to the stem: each block's margin follows from the next one's.
        for inputs, (outputs, up) in reversed(list(zip(widths, config.generator_blocks, strict=False))):
            side //= 1 + up
            blocks.append(GeneratorBlock(config, inputs, outputs, up, side, margin))
            margin = blocks[-1].margin
        self.blocks = nn.ModuleList(reversed(blocks))
        self.margin = margin
        self.norm = nn.BatchNorm2d(widths[-1], eps=1e-5, momentum=0.1)
        self.to_image = PaddedConv(widths[-1], config.channels, config.padding)
        initialise(self, spectral=spectral, apart=(ConditionalNorm, Place))

    def forward(self, latent: Tensor, coordinates: Tensor, block: tuple[int, int] = (1, 1)) -> Tensor:
        """Generate micro patches.

        Args:
            latent: [N, latent], uniform on [-1, 1].
            coordinates: micro coordinates [N, dimensions].
            block: number of micro patches, down and across, that are made at once from the one at `coordinates` on,
                with dense places. They have the same pixels as single patches, for less work.
        Returns:
            [N, channels, block[0] * patch, block[1] * patch] in [-1, 1].
        """
        config = self.config
        condition = latent if config.dense else torch.cat([latent, coordinates], dim=1)
        with torch.autocast(condition.device.type, enabled=False):
            x = self.stem(condition)
            sides = [2 * n + 2 * self.margin for n in block]
            x = x[:, :, None, None].expand(-1, -1, *sides) if config.dense else x.unflatten(1, (-1, 2, 2))
        assert self.to_image.bias is not None
        x = x.to(self.to_image.bias.dtype, memory_format=torch.channels_last)
        return self._finish(x, condition, coordinates, block=block, first=0)

    @property
    def batching(self) -> tuple[int, int]:
        """The smallest batch, and the number of which every batch is a multiple, for bits that no batch changes."""
        return self.batching_on(self.to_image.weight.device)

    def batching_on(self, device: torch.device) -> tuple[int, int]:
        """The value of `batching` on a device."""
        if device.type != "cpu":
            return 1, 1
        return (_DENSE_CPU_STEP, _DENSE_CPU_STEP) if self.config.dense else (_SMALLEST_CPU_BATCH, 1)

    def _finish(
        self, x: Tensor, condition: Tensor, coordinates: Tensor, *, block: tuple[int, int], first: int
    ) -> Tensor:
        """Run the blocks from `first` on; on a CPU wide maps run in parts that stay in its caches."""
        for number in range(first, len(self.blocks)):
            sizes = self._sizes(number, x)
            if len(sizes) > 1:
                parts = parts_of(sizes, x, condition, coordinates)
                return joined([self._finish(*maps, block=block, first=number) for maps in parts])
            x = self.blocks[number](x, condition, coordinates, block)
        return torch.tanh(self.to_image(F.relu(self.norm(x), inplace=True)))

    def _sizes(self, number: int, x: Tensor) -> list[int]:
        """The sizes of the parts in which block `number` runs its maps."""
        scale = 4 if self.config.generator_blocks[number][1] else 1
        return part_sizes(x, scale * x.shape[1:].numel() * x.element_size(), self.training, *self.batching)
