"""Steps that the rewrites of convolutions share: read the trained layer in float64, make a plain one, pad a map."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zellige.errors import ShapeError

from ...kernels.op.layout import is_channels_last
from ..layers.batch_invariance import BatchInvariantLinear
from ..layers.convolutions import JoinedConvTranspose2d, PaddedConv, Padding
from .fold_weight import fold_weight

__all__ = ["Convolution", "Mode", "bordered", "conv2d", "fill", "plain", "read_conv", "require_plain"]

Mode = Literal["zeros", "reflect", "replicate", "circular"]


@dataclass(frozen=True)
class Convolution:
    """A convolution of stride 1 in one group, with float64 weights so that sums of them are rounded only once.

    Attributes:
        weight: [K, C, R, R].
        bias: [K], or None.
        padding: cells added on every side, (R - 1) / 2 or 0.
        mode: the content of these cells.
        layer: the convolution without parametrisations; rewritten layers get its dtype, device and memory format.
    """

    weight: Tensor
    bias: Tensor | None
    padding: int
    mode: Mode
    layer: nn.Conv2d


def read_conv(conv: nn.Conv2d, sides: tuple[int, ...] | None = None) -> Convolution:
    """Read a trained convolution, or refuse it.

    Args:
        conv: nn.Conv2d or PaddedConv, with or without spectral norm; it is not changed.
        sides: the kernel sides R that are allowed; None allows every odd side.
    Raises:
        ShapeError: the kernel is not a square of an allowed side, the padding is neither none nor (R - 1) / 2, or the
            layer has a stride, a dilation, groups, or a `forward` of its own.
    """
    require_plain(conv, nn.Conv2d)
    allowed = "a square of odd side" if sides is None else " or ".join(f"{side}x{side}" for side in sides)
    down, across = conv.kernel_size
    if down != across or (down % 2 == 0 if sides is None else down not in sides):
        raise ShapeError(f"The convolution's kernel is {down}x{across}; it must be {allowed}.")
    for name, value, one in (
        ("stride", conv.stride, (1, 1)),
        ("dilation", conv.dilation, (1, 1)),
        ("groups", conv.groups, 1),
    ):
        if value != one:
            raise ShapeError(f"The convolution's {name} is {value}; it must be {one}.")
    same = down // 2
    padding = (
        {"same": (same, same), "valid": (0, 0)}.get(conv.padding) if isinstance(conv.padding, str) else conv.padding
    )
    if padding not in ((0, 0), (same, same)):
        either = f"{same} or 0" if same else "0"
        raise ShapeError(f"The convolution's padding is {conv.padding}; it must be {either} on all sides.")
    mode: Mode = conv.padding_mode
    cells = padding[0]
    if isinstance(conv, PaddedConv) and conv.replicate:
        cells, mode = same, "replicate"
    layer = fold_weight(conv)
    bias = None if layer.bias is None else layer.bias.double()
    return Convolution(layer.weight.double(), bias, cells, mode, layer)


def require_plain(layer: nn.Module, *kinds: type[nn.Module]) -> None:
    """Refuse a layer that is of none of these classes of torch, or whose `forward` computes something else.

    Raises:
        ShapeError: the message names the layer's class and the classes that are allowed.
    """
    known: list[type[nn.Module]] = [*kinds, PaddedConv, JoinedConvTranspose2d, BatchInvariantLinear]
    if isinstance(layer, kinds) and any(type(layer).forward is kind.forward for kind in known):
        return
    names = " or ".join(f"nn.{kind.__name__}" for kind in kinds)
    raise ShapeError(f"The layer is {type(layer).__name__}; it must be {names}, without a forward of its own.")


def plain(conv: PaddedConv) -> PaddedConv:
    """The convolution of a layer such as UpConv, without the step before it; the weights are shared."""
    padding: Padding = "replicate" if conv.replicate else "zeros" if conv.padding == (1, 1) else "none"
    with torch.device("meta"):
        made = PaddedConv(conv.in_channels, conv.out_channels, padding, bias=conv.bias is not None)
    made.weight, made.bias = conv.weight, conv.bias
    return made.eval()


def conv2d(
    weight: Tensor,
    bias: Tensor | None,
    padding: int,
    like: nn.Conv2d | nn.ConvTranspose2d,
    dtype: torch.dtype | None = None,
) -> nn.Conv2d:
    """Make a zero-padded convolution [K, C, R, R] without gradients, in `like`'s dtype unless another is given."""
    outputs, inputs, *kernel = weight.shape
    made = nn.Conv2d(inputs, outputs, (kernel[0], kernel[1]), padding=padding, bias=bias is not None, device="meta")
    fill(made, weight, bias, like, dtype)
    return made


def fill(
    made: nn.Conv2d | nn.ConvTranspose2d,
    weight: Tensor,
    bias: Tensor | None,
    like: nn.Conv2d | nn.ConvTranspose2d,
    dtype: torch.dtype | None = None,
) -> None:
    """Give a layer its weights, in the memory format of `like` and in its dtype unless another is given."""
    dtype = dtype or like.weight.dtype
    layout = torch.channels_last if is_channels_last(like.weight) else torch.contiguous_format
    made.weight = nn.Parameter(weight.to(dtype, memory_format=layout), requires_grad=False)
    made.bias = None if bias is None else nn.Parameter(bias.to(dtype), requires_grad=False)
    made.eval()


def bordered(x: Tensor, cells: int, mode: Mode) -> Tensor:
    """Pad a map on every side and keep its memory format, which F.pad does not for circular padding."""
    layout = torch.channels_last if is_channels_last(x) else torch.contiguous_format
    name = "constant" if mode == "zeros" else mode
    return F.pad(x, (cells, cells, cells, cells), mode=name).contiguous(memory_format=layout)
