"""Runs nearest x2 and the 3x3 convolution after it in one step on the small map.

Three taps over a map whose pixels come in equal pairs are two taps over the small map. In one dimension, with
u[2h + i] = x[h] and taps w0, w1, w2, the even and the odd rows are

    y[2h]     = w0 x[h - 1] + (w1 + w2) x[h],
    y[2h + 1] = (w0 + w1) x[h] + w2 x[h + 1],

and columns follow the same formulas. This makes four 2x2 convolutions, one for each phase (i, j) of the large map. One
convolution to 4K channels over the small map padded by one computes all four: it gives [N, 4K, H + 1, W + 1], where
phase (i, j) begins at cell (i, j). One transposed convolution of stride 2 computes all four too; its kernel is
w2, w1 + w2, w0 + w1, w0 down and across.

This saves 2.25x of the multiplications: 36 K C H W become 16 K C (H + 1) (W + 1), or 16 K C H W transposed.

It is exact for all paddings of the large map by one cell. Before the first row lie zeros for zero padding; x[0] for
replicate; x[H - 1] for circular, because u[-1] = u[2H - 1]; and x[0] for reflect, because u[-1] = u[1], so that reflect
becomes replicate on the small map. Unpadded, only the rows 1 to 2H - 2 are made. Sums of weights are rounded once.

It loses on large maps with few channels, because interleaving reads and writes the whole result. On one Zen 5 core
`winograd` is 1.3 to 30 times as fast as phases and `phase_epilogue` together, at 24 points: six up-convolutions of
OneGAN at batch 1 and 8 in float32 and bfloat16. If interleaving were free, phases would win at one of the points:
float32, 64 to 64 channels, 128 pixels, batch 8. Source: Shi et al. 2016 (sub-pixel convolution).
"""

from collections.abc import Sequence
from itertools import product
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zellige.errors import ShapeError

from ...kernels.op.layout import is_channels_last
from ..layers.batch_parts import is_written
from ..layers.convolutions import JoinedConvTranspose2d
from ..layers.modulated import SpreadConv
from .convolution import Convolution, Mode, bordered, conv2d, fill, read_conv, require_plain
from .fold_weight import fold_weight

__all__ = [
    "JoinedPhaseUpConv",
    "PhaseUpConv",
    "SpreadPhases",
    "TransposedUpConv",
    "doubles",
    "spread_phases",
    "transposed_phases",
    "up_conv",
]


@torch.no_grad()
def up_conv(conv: nn.Conv2d, form: Literal["phases", "transposed"] = "phases") -> "PhaseUpConv | TransposedUpConv":
    """Rewrite the convolution that follows nearest x2 as one layer on the small map.

    Args:
        conv: a 3x3 convolution, padded by one cell in any mode, or unpadded; it is not changed.
        form: "phases" for one 2x2 convolution that makes four phases, "transposed" for one transposed convolution.
    Returns:
        A module from [N, C, H, W] to [N, K, 2H, 2W], or [N, K, 2H - 2, 2W - 2] unpadded, in its input's memory format.
    Raises:
        ShapeError: the layer is no such convolution.
    """
    trained = read_conv(conv, sides=(3,))
    if form == "transposed":
        return TransposedUpConv(trained)
    # Taps of the small map by phase and place: (i, j, K, C, 2, 2).
    pairs = trained.weight.new_tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])
    weight = torch.einsum("iar,jbs,kcrs->ijkcab", pairs, pairs, trained.weight).flatten(0, 2)
    return PhaseUpConv(weight, trained.bias, trained.layer, trained.padding == 1, _small_mode(trained))


@torch.no_grad()
def transposed_phases(layer: nn.ConvTranspose2d) -> "PhaseUpConv":
    """Rewrite a transposed convolution that doubles the side as four 2x2 convolutions, one for each phase.

    y[2h] = w3 x[h - 1] + w1 x[h] and y[2h + 1] = w2 x[h] + w0 x[h + 1]: as many multiplications, in a convolution
    of a kind that libraries run well on any machine. To 3 outputs at 256 pixels it took a fifth to a tenth of the time
    on 2 cores, and at 64 outputs and more 0.6 to 2 times as long.

    Args:
        layer: 4x4, stride 2, padded by 1, in one group; it is not changed.
    Raises:
        ShapeError: the layer is another one.
    """
    require_plain(layer, nn.ConvTranspose2d)
    if not doubles(layer):
        raise ShapeError(f"The layer is {layer}; it must be 4x4, of stride 2 and padding 1, in one group.")
    trained = fold_weight(layer)
    taps = torch.tensor([[3, 1], [2, 0]], device=trained.weight.device)  # of the kernel, by phase and place
    weight = trained.weight[:, :, taps][..., taps].permute(2, 4, 1, 0, 3, 5).flatten(0, 2)  # [i j K, C, a, b]
    bias = None if trained.bias is None else trained.bias.detach()
    if isinstance(layer, JoinedConvTranspose2d):
        return JoinedPhaseUpConv(weight.split(layer.parts, dim=1), bias, trained)
    return PhaseUpConv(weight, bias, trained, True, "zeros")


def doubles(layer: nn.ConvTranspose2d) -> bool:
    """Whether a transposed convolution is one that `transposed_phases` takes."""
    shape = (layer.kernel_size, layer.stride, layer.padding, layer.output_padding, layer.dilation)
    return shape == ((4, 4), (2, 2), (1, 1), (0, 0), (1, 1)) and layer.groups == 1


@torch.no_grad()
def spread_phases(layer: SpreadConv) -> "SpreadPhases":
    """Rewrite a styled transposed convolution as one 2x2 convolution that makes four phases.

    y[2h] = w2 x[h - 1] + w0 x[h] and y[2h + 1] = w1 x[h]. Taps that are zero are multiplied too, 16 in
    place of 9, so it is for graphs that no library builds otherwise.

    Args:
        layer: 3x3, stride 2, unpadded; it is not changed.
    """
    weight = layer.weight.detach().transpose(0, 1)  # [K, C, 3, 3]
    padded = F.pad(weight, (0, 1, 0, 1))  # tap 3 is zero
    taps = torch.tensor([[2, 0], [3, 1]], device=weight.device)  # of the kernel, by phase and place
    phases = padded[:, :, taps][..., taps].permute(0, 2, 4, 1, 3, 5).flatten(0, 2)  # [K i j, C, a, b]
    return SpreadPhases(conv2d(phases, None, 1, layer))


class SpreadPhases(nn.Module):
    """One 2x2 convolution of style times map, whose phases are interleaved; `spread_phases` makes it."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self.eval()

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Convolve [N, C, H, W] under [N, C] to [N, K, 2H + 1, 2W + 1]."""
        phases = self.conv(x * style.to(x.dtype)[:, :, None, None])
        return F.pixel_shuffle(phases, 2)[:, :, :-1, :-1]


class PhaseUpConv(nn.Module):
    """One 2x2 convolution that makes all four phases, which are then interleaved.

    `up_conv` and `transposed_phases` make it.

    Args:
        weight: of the small map by phase, [4K, C, 2, 2].
        bias: [K], or None.
        like: gives dtype and memory layout.
        padded: whether the large map is padded by one cell.
        mode: how the small map is padded.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, like: nn.Conv2d | nn.ConvTranspose2d, padded: bool, mode: Mode
    ) -> None:
        super().__init__()
        self.padded, self.mode = padded, mode
        bias = None if bias is None else bias.repeat(4)
        self.conv = conv2d(weight, bias, 1 if padded and mode == "zeros" else 0, like)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, C, H, W] to [N, K, 2H, 2W], or [N, K, 2H - 2, 2W - 2] unpadded."""
        return self._interleaved(self.phases(x), is_channels_last(x))

    def _interleaved(self, phases: Tensor, last: bool) -> Tensor:
        """The large map of the phases' map; `last` is whether it lies channels-last."""
        down, across, channel = (1, 2, 3) if last else (2, 3, 1)
        parts = (phases.permute(0, 2, 3, 1) if last else phases).chunk(4, dim=channel)
        height, width = (side - self.padded for side in phases.shape[2:])

        def pixels(i: int, j: int) -> Tensor:
            """Every second row and column of the result, beginning with row i and column j."""
            if not self.padded:  # the first row and column are y[1], which belongs to an odd phase
                return parts[2 * (1 - i) + (1 - j)]
            return parts[2 * i + j].narrow(down, i, height).narrow(across, j, width)

        if not is_written() and not phases.requires_grad:  # 0.6 to 0.8 of the time on a CPU, and less memory
            first = pixels(0, 0)
            sides = list(first.shape)
            sides[down], sides[across] = 2 * sides[down], 2 * sides[across]
            y = first.new_empty(sides)
            for i, j in product((0, 1), repeat=2):
                (y[:, i::2, j::2] if last else y[:, :, i::2, j::2]).copy_(pixels(i, j))
        else:  # strided copies become scatters in ONNX
            rows = [torch.stack([pixels(i, 0), pixels(i, 1)], dim=across + 1) for i in (0, 1)]
            y = torch.stack(rows, dim=down + 1).flatten(across + 1, across + 2).flatten(down, down + 1)
        return y.permute(0, 3, 1, 2) if last else y

    def phases(self, x: Tensor) -> Tensor:
        """Maps [N, C, H, W] to [N, 4K, H + 1, W + 1]; phase p = 2i + j is in the channels p K to (p + 1) K - 1.

        Pixel (2h + i, 2w + j) of the result is cell (h + i, w + j) of its phase. Unpadded, the map is
        [N, 4K, H - 1, W - 1], and the cell is (h + i - 1, w + j - 1), with h and w counted before the first row and
        column are cut off.
        """
        if self.padded and self.mode != "zeros":
            x = bordered(x, 1, self.mode)
        y: Tensor = self.conv(x)
        return y


class JoinedPhaseUpConv(PhaseUpConv):
    """The phases of maps that are joined along their channels, which are convolved one by one and added.

    `transposed_phases` makes it. With few outputs the sums are small, and a joined copy of the maps would be large.

    Args:
        weights: of each map by phase, [4K, C, 2, 2].
        bias: [K], or None.
        like: gives dtype and memory layout.
    """

    def __init__(self, weights: Sequence[Tensor], bias: Tensor | None, like: nn.ConvTranspose2d) -> None:
        super().__init__(weights[0], bias, like, True, "zeros")
        self.others = nn.ModuleList(conv2d(weight, None, 1, like) for weight in weights[1:])
        self.eval()

    def forward(self, *maps: Tensor) -> Tensor:
        """Maps [N, C, H, W] of one size to [N, K, 2H, 2W]."""
        phases = self.phases(maps[0])
        for conv, x in zip(self.others, maps[1:], strict=True):
            phases = phases + conv(x)
        return self._interleaved(phases, is_channels_last(maps[0]))


class TransposedUpConv(nn.Module):
    """One 4x4 transposed convolution of stride 2; `up_conv` makes it."""

    def __init__(self, trained: Convolution) -> None:
        super().__init__()
        self.mode = _small_mode(trained)
        self.pad = trained.padding == 1 and self.mode != "zeros"
        pairs = trained.weight.new_tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
        weight = torch.einsum("ar,bs,kcrs->ckab", pairs, pairs, trained.weight)
        # Rows and columns to cut off every side of the full result: 1 for zeros; 2 unpadded; 3 if the map is padded
        # here, because a cell of padding makes 2 more.
        cut = 3 if self.pad else 2 - trained.padding
        inputs, outputs = weight.shape[:2]
        bias = trained.bias
        self.conv = nn.ConvTranspose2d(inputs, outputs, 4, 2, cut, bias=bias is not None, device="meta")
        fill(self.conv, weight, bias, trained.layer)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, C, H, W] to [N, K, 2H, 2W], or [N, K, 2H - 2, 2W - 2] unpadded."""
        y: Tensor = self.conv(bordered(x, 1, self.mode) if self.pad else x)
        return y


def _small_mode(trained: Convolution) -> Literal["zeros", "replicate", "circular"]:
    return "replicate" if trained.mode == "reflect" else trained.mode
