"""COCO-GAN's generator, which turns a latent vector and a patch coordinate into one micro patch.

Source: Lin, Chang, Chen, Juan, Wei, Chen, "COCO-GAN: Generation by Parts via Conditional Coordinating", ICCV 2019.
If the paper and its reference code differ, the paper is followed; `reference_quirks` follows the code.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....kernels import affine_relu, affine_relu_rows
from ...layers.batch_invariance import BatchInvariantLinear, BatchInvariantPointConv
from ...layers.batch_parts import bands, on_cpu, part_sizes, piece_block
from ...layers.convolutions import PaddedConv, UpConv, trim
from ...layers.spectral import initialise
from .config import CocoGanConfig
from .place import Place
from .spread import Cells, Window, steady

__all__ = ["ConditionalNorm", "Generator"]

_PIECE = 128  # the fewest cells along a side of a piece of a dense map; margins of smaller pieces would cost too much


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

    def factors(self, condition: Tensor, cells: Cells | None = None) -> tuple[Tensor, Tensor]:
        """Scale and shift under conditions; in evaluation with the running statistics folded in.

        Args:
            condition: [N, K], or [N, R, T, K] for cells of the stem.
            cells: where the map's cells lie among those; only for the latter.
        Returns:
            [N, C] each, or [N, C, R, T | 1] for the stem's rows and the map's columns.
        """
        if cells is not None:
            found = (t.unflatten(0, condition.shape[:3]) for t in self.factors(condition.flatten(0, 2)))
            scale, shift = (cells.across(t).permute(0, 3, 1, 2) for t in found)
            return scale, shift
        # Conditions stay in float32 under autocast, because bfloat16 cannot tell neighbouring angles apart.
        with torch.autocast(condition.device.type, enabled=False):
            scale, shift = self.scale(condition), self.shift(condition)
        if self.training:
            return scale, shift
        scale = scale * self._inverse_deviation(self.running_var)
        return scale, shift - scale * self.running_mean

    def relu(self, x: Tensor, condition: Tensor, cells: Cells | None = None, plus: Tensor | None = None) -> Tensor:
        """Normalise, add a map and rectify; scale, shift, sum and ReLU take one pass. A sum is for evaluation alone."""
        x, factors = self._standardised(x), self.factors(condition, cells)
        if plus is None and (cells is None or condition.shape[1] == 1):
            return affine_relu(x, *factors)
        every, first = (cells.scale, cells.first) if cells else (1, 0)
        return affine_relu_rows(x, *factors, plus, every=every, first=first)

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
        self.up, self.side, self.beyond = up, side, margin
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
        self.shortcut = BatchInvariantPointConv(inputs, outputs)

    def forward(self, x: Tensor, window: Window) -> Tensor:
        """Run on maps [N, C, S, T], which show a window."""
        y, x = self.opened(x, window)
        y = self.conv1(y)
        y = self.middle(y, window)
        return self.closed(y, x)

    def opened(self, x: Tensor, window: Window) -> tuple[Tensor, Tensor]:
        """The map that the convolutions take, and the shortcut before it is doubled; the block's input is then free."""
        condition = window.condition
        if self.place is None:
            y = self.norm1.relu(x, condition)
        else:
            with torch.autocast(x.device.type, enabled=False):
                field = self.place(window, self.margin)
            if self.training:
                y = self.norm1(x, condition)
                y = F.relu(y + field.to(y.dtype), inplace=True)
            else:
                y = self.norm1.relu(x, condition, window.cells(self.side, self.margin), field)
        # A 1x1 convolution and nearest x2 commute exactly; this order does a quarter of the work.
        return y, self.shortcut(x)

    def middle(self, y: Tensor, window: Window) -> Tensor:
        """Between the two convolutions."""
        cells = window.cells((1 + self.up) * self.side, self.beyond + 1)
        return self.norm2.relu(y, window.condition, cells)

    def closed(self, y: Tensor, x: Tensor) -> Tensor:
        """The result, from the map of the second convolution and the shortcut."""
        return self._with_shortcut(self.conv2(y), x)

    def _with_shortcut(self, y: Tensor, x: Tensor) -> Tensor:
        """Add the shortcut; it is doubled a band of rows at a time, because a whole map of its own is much memory."""
        cut = self.spare + 2 if self.place is not None else 0
        if not self.up:
            return y.add_(trim(x, cut))
        for first, last in bands(y, self.training):
            top, stop = (cut + first) // 2, (cut + last + 1) // 2
            part = F.interpolate(x[:, :, top:stop], scale_factor=2.0, mode="nearest")
            begin, width = cut + first - 2 * top, y.shape[3]
            y[:, :, first:last].add_(part[:, :, begin : begin + last - first, cut : cut + width])
        return y


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
            latent: [N, latent], uniform on [-1, 1]. With dense places also [N, R, T, latent], latents that move: one
                for every cell of the stem, two a patch, from `CocoGanConfig.inside.reach` cells before the block to as
                many behind it. R or T is 1 along an axis where the latent does not move.
            coordinates: micro coordinates [N, dimensions].
            block: number of micro patches, down and across, that are made at once from the one at `coordinates` on,
                with dense places. They have the same pixels as single patches, for less work.
        Returns:
            [N, channels, block[0] * patch, block[1] * patch] in [-1, 1].
        """
        config = self.config
        condition = latent if config.dense else torch.cat([latent, coordinates], dim=1)
        window = Window(condition, coordinates, block, reach=self.margin + 1)
        into = None
        if on_cpu(latent, self.training):  # made first, so that no part of it lies between the maps that come and go
            height, width = (n * config.patch for n in block)
            into = latent.new_empty((len(latent), config.channels, height, width), dtype=self.to_image.weight.dtype)
        return self._finish(self._stem(window), window, into)

    def _stem(self, window: Window) -> Tensor:
        """The first map of a window."""
        condition, dtype = window.condition, self.to_image.weight.dtype
        with torch.autocast(condition.device.type, enabled=False):
            x = self.stem(condition.flatten(0, -2))
        if self.config.dense:
            rows, columns = (2 * n + 2 * self.margin for n in window.block)
            cells = Cells(1, 1, (rows, columns))
            x = cells.down(cells.across(steady(x.unflatten(0, condition.shape[:-1]))))
            x = x.permute(0, 3, 1, 2).expand(-1, -1, rows, columns)
        else:
            x = x.unflatten(1, (-1, 2, 2))
        return x.to(dtype, memory_format=torch.channels_last)

    def _finish(self, x: Tensor, window: Window, into: Tensor | None, first: int = 0) -> Tensor:
        """Run the blocks from `first` on; on a CPU wide maps run in parts that stay in its caches.

        The parts of a batch are some of its samples, and those of a single dense sample are some of its patches. A map
        is freed when it has been read, so a caller must not keep it.

        Args:
            x: the map before the block `first`.
            window: what it shows.
            into: memory for the pixels; None makes it.
            first: number of the first block.
        """
        for number in range(first, len(self.blocks)):
            part: Any = self.blocks[number]
            widest = (4 if part.up else 1) * x.shape[1:].numel() * x.element_size()
            sizes = part_sizes(x, widest, self.training)
            if into is not None and len(sizes) > 1:
                start = 0
                for size, sample in zip(sizes, window.samples(sizes), strict=True):
                    self._finish(x[start : start + size], sample, into[start : start + size], number)
                    start += size
                return into
            pieces = self._pieces(x, window, number) if into is not None else [window]
            if into is not None and len(pieces) > 1:
                for piece in pieces:
                    self._finish(
                        _cut(x, window, piece, part.side, part.margin).contiguous(memory_format=torch.channels_last),
                        piece,
                        _cut(into, window, piece, self.config.patch),
                        number,
                    )
                return into
            # Step by step, because a function's caller would keep the map that the function was given.
            y, x = part.opened(x, window)
            y = part.conv1(y)
            y = part.middle(y, window)
            x = part.closed(y, x)
            del y
        x = torch.tanh(self.to_image(F.relu(self.norm(x), inplace=True)))
        return x if into is None else into.copy_(x)

    def _pieces(self, x: Tensor, window: Window, number: int) -> list[Window]:
        """The pieces in which to run a block of the generator on a map; only a single dense sample is cut."""
        if not self.config.dense or len(x) > 1:
            return [window]
        part: Any = self.blocks[number]
        up = 1 + part.up
        made = up**2 * self.config.generator_blocks[number][0] * x[0, 0].numel() * x.element_size()
        return window.pieces(piece_block(made, window.block, -(-_PIECE // (up * part.side))))


def _cut(x: Tensor, window: Window, piece: Window, side: int, margin: int = 0) -> Tensor:
    """The part of a window's map [N, C, H, W] that a piece shows; patches have `side` cells, the map a margin."""
    for axis, (whole, own, patches) in enumerate(zip(window.offset, piece.offset, piece.block, strict=True)):
        x = x.narrow(2 + axis, (own - whole) * side, patches * side + 2 * margin)
    return x
