"""The weights of winograd_conv: transformed once, and laid out as its C++ kernel reads them."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zellige.errors import ShapeError

from ..op.gradients import differentiated, refuse_derivative
from ..op.precision import full_precision
from ..op.validation import FLOATING, refuse

__all__ = ["BLOCK", "FAR", "FORMS", "LANES", "NEAR", "Form", "unpacked", "winograd_weight"]

BLOCK = 32  # outputs whose weights lie together
LANES = 16  # inputs are filled up to a multiple of 16


@dataclass(frozen=True)
class Form:
    """What is convolved, and how its tiles are made.

    Attributes:
        kind: its number in C++.
        axis: the transform of a kernel along one axis, a row for each product.
        made: cells of the result that a tile makes along one axis.
        groups: groups of inputs, the pixels of a cell if the map is halved.
        phases: groups of outputs, the pixels of a cell if the map is doubled.
        spread: whether the kernel is a transposed one of 3x3, whose pixels have two taps and one in turns.
    """

    kind: int
    axis: tuple[tuple[float, ...], ...]
    made: int = 2
    groups: int = 1
    phases: int = 1
    spread: bool = False

    @property
    def products(self) -> int:
        """Matrices; if they are not spread, as many as multiplications of a tile for one input and output."""
        return len(self.axis) ** 2

    @property
    def strided(self) -> bool:
        """Whether the kernel is one of stride 2."""
        return self.groups * self.phases > 1 or self.spread

    @property
    def doubles(self) -> bool:
        """Whether the result has twice the sides of the map."""
        return self.kind == 1 or self.phases > 1

    def shape(self, inputs: int, outputs: int, dtype: torch.dtype) -> tuple[int, ...]:
        """The shape of the transformed weights."""
        pairs = _pairs(dtype)
        stored = self.groups * -(-inputs // LANES) * LANES
        blocks = self.phases * -(-outputs // BLOCK)
        if self.spread:  # matrices lie in a row, so that no other form has this shape
            return blocks, 1, self.products * stored // pairs, BLOCK * pairs
        return blocks, self.products, stored // pairs, BLOCK * pairs


_TWO_TAPS = {
    1: ((1.0, 0.0), (0.0, 1.0)),
    2: ((1.0, 0.0), (1.0, 1.0), (0.0, 1.0)),
    3: ((1.0, 0.0), (0.5, 0.5), (0.5, -0.5), (0.0, 1.0)),
}
SAME = Form(0, ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0)))
# The points of interpolation are 0, 3/4, -3/4, 3/2, -3/2 and infinity, as in tiles.hpp.
NEAR, FAR = 0.75, 1.5


def _at(point: float, other: float) -> tuple[float, float, float]:
    """The row of a point, where `other` is the other size of points."""
    norm = 2 * point**2 * (point**2 - other**2)
    return 1 / norm, point / norm, point**2 / norm


_FOUR = tuple(_at(sign * point, other) for point, other in ((NEAR, FAR), (FAR, NEAR)) for sign in (1, -1))
SAME_4 = Form(0, ((1 / (NEAR * FAR) ** 2, 0.0, 0.0), *_FOUR, (0.0, 0.0, 1.0)), 4)
UPSAMPLED = Form(1, ((1.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.0, 0.0, 1.0)))
HALVED = {made: Form(2, axis, made, groups=4) for made, axis in _TWO_TAPS.items()}
DOUBLED = {made: Form(3, axis, made, phases=4) for made, axis in _TWO_TAPS.items()}
# With two cells, single taps make products with two neighbours, which share a matrix.
_IN_TURNS = {
    1: ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    2: ((0.0, 0.0, 1.0), (1.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
}
SPREAD = {made: Form(4, axis, made, spread=True) for made, axis in _IN_TURNS.items()}
FORMS = (SAME, SAME_4, UPSAMPLED, *HALVED.values(), *DOUBLED.values(), *SPREAD.values())


def winograd_weight(
    weight: Tensor, *, upsample: bool = False, transposed: bool = False, cells: Literal[1, 2, 3, 4] | None = None
) -> Tensor:
    """Transform a kernel for winograd_conv: U = G g G', one matrix of inputs by outputs for each element of U.

    For a 3x3 kernel G is [[1, 0, 0], [1, 1, 1] / 2, [1, -1, 1] / 2, [0, 0, 1]], and with `upsample`
    [[1, 0, 0], [1, 1, 1], [0, 0, 1]]. A 4x4 kernel is that of a convolution of stride 2. Its taps of even and odd rows
    and columns are four 2x2 kernels, on four maps of every second pixel; if it is transposed, each makes one such map.
    For them G is [[1, 0], [1, 1] / 2, [1, -1] / 2, [0, 1]], for `cells` of 2 [[1, 0], [1, 1], [0, 1]], and for 1 the
    identity. A transposed 3x3 kernel makes even rows with its outer taps and odd ones with the middle one; G is
    [[0, 0, 1], [1, 0, 1], [1, 0, 0], [0, 1, 0]], and for 1 it has no second row. Sums are float64, rounded once to
    weight's dtype. For inference only: the result has no gradient.

    Args:
        weight: [K, C, 3, 3] or [K, C, 4, 4], transposed [C, K, 3, 3] or [C, K, 4, 4]; K and C at least 1, without
            dilation or groups; any strides; float32, float16, bfloat16 or float64.
        upsample: the convolution, 3x3, follows nearest up-sampling by 2.
        transposed: the kernel is that of a transposed convolution of stride 2: 4x4 with a padding of 1, or 3x3 without.
        cells: cells a side that a tile makes; None for 2 of a kernel of stride 1, else for the most. Of a 3x3 kernel of
            stride 1 it is 2, or 4 for 1/4 of the direct sum's multiplications and 4 times its weights, whose transform
            is for float32 alone: errors are 3 times those of 2. Of a 4x4 kernel 3 has the
            fewest multiplications, 4/9 of the direct sum's, and 4 times its weights, which small maps read longer than
            they multiply; 2 has 9/16 and 9/4; 1 is the direct sum. Of a 3x3 kernel 2 has 25/36 of the direct sum's, and
            16/9 of its weights; 1 is the direct sum.

    Returns:
        [f ceil(K / 32), P, s C' / p, 32 p], weight's dtype: blocks of outputs; P = 16 matrices, 9 with `upsample`,
        (cells + 1)^2 for a 4x4 kernel; C' the inputs filled up with zeros to a multiple of 16, of which p = 2 are
        neighbours in bfloat16, 1 elsewhere. s is 4 for a 4x4 kernel, whose groups of inputs are pixels (0, 0), (0, 1),
        (1, 0), (1, 1) of a cell, and f is 4 for a transposed one, whose groups of outputs are these pixels; else both
        are 1. For a transposed 3x3 kernel [ceil(K / 32), 1, (cells + 2)^2 C' / p, 32 p].

    Raises:
        ShapeError: weight has another shape or dtype, `upsample` and `transposed` are both set, or there are no tiles
            of so many cells.
    """
    if upsample and transposed:
        raise ShapeError("upsample is for a 3x3 kernel and transposed for one of stride 2; choose one of them.")
    side = 4 if weight.dim() == 4 and weight.shape[2] == 4 and not upsample else 3
    shaped = weight.dim() == 4 and min(weight.shape[:2]) >= 1 and weight.shape[2:] == (side, side)
    if not shaped or weight.dtype not in FLOATING:
        ends = "C, K" if transposed else "K, C"
        sizes = f"[{ends}, 3, 3]{'' if upsample else f' or [{ends}, 4, 4]'}"
        refuse("weight", weight, f"{sizes}, K and C at least 1, float32, float16, bfloat16 or float64")
    form = _form(side, upsample, transposed, cells)
    if differentiated(weight):
        refuse_derivative("winograd_weight")
    taps = weight.detach().double()
    if side == 4:
        taps = _taps_of_phases(taps) if transposed else _taps_of_groups(taps)
    else:
        taps = (taps.transpose(0, 1) if transposed else taps)[None, None]
    outputs, inputs = taps.shape[2:4]
    axis = torch.tensor(form.axis, dtype=torch.float64, device=weight.device)
    with full_precision(weight.device):
        matrices = torch.einsum("ia,jb,fskcab->fsijck", axis, axis, taps).flatten(2, 3)  # [f, s, P, C, K]
    filled = F.pad(matrices, (0, -outputs % BLOCK, 0, -inputs % LANES)).to(weight.dtype)
    # [f, blocks, P, s, C', 32], then [f blocks, P, s C', 32].
    blocks = filled.unflatten(4, (-1, BLOCK)).permute(0, 4, 2, 1, 3, 5).flatten(3, 4).flatten(0, 1)
    blocks = blocks.unflatten(2, (-1, _pairs(weight.dtype))).transpose(3, 4).flatten(3)
    return blocks.contiguous().view(form.shape(inputs, outputs, weight.dtype))


def _form(side: int, upsample: bool, transposed: bool, cells: int | None) -> Form:
    """The form of a kernel with so many taps a side."""
    if upsample:
        table = {2: UPSAMPLED}
    elif side == 3:
        table = SPREAD if transposed else {2: SAME, 4: SAME_4}
    else:
        table = DOUBLED if transposed else HALVED
    if cells is None:
        cells = 2 if side == 3 else 3
    if cells not in table:
        *some, last = map(str, table)
        raise ShapeError(f"cells is {cells}; it must be {', '.join(some) + ' or ' if some else ''}{last}.")
    return table[cells]


def _taps_of_groups(weight: Tensor) -> Tensor:
    """The taps on each of the four pixels of a cell, [1, 4, K, C, 2, 2]: tap 2t + a is tap t on pixel a."""
    return weight.unflatten(2, (2, 2)).unflatten(4, (2, 2)).permute(3, 5, 0, 1, 2, 4).flatten(0, 1)[None]


def _taps_of_phases(weight: Tensor) -> Tensor:
    """The taps that make each of the four pixels of a cell, [4, 1, K, C, 2, 2].

    y[2h] = w3 x[h - 1] + w1 x[h], and y[2h + 1] = w2 x[h] + w0 x[h + 1].
    """
    taps = torch.tensor([[3, 1], [2, 0]], device=weight.device)
    return weight[:, :, taps][..., taps].permute(2, 4, 1, 0, 3, 5).flatten(0, 1)[:, None]


def unpacked(matrices: Tensor) -> Tensor:
    """Return the result of `winograd_weight` as [P, s C', f K'], where K' is K filled up to a multiple of 32.

    Those of a transposed 3x3 kernel are taken for one matrix, [1, P C', K'].
    """
    blocks = matrices.unflatten(3, (BLOCK, _pairs(matrices.dtype))).transpose(3, 4).flatten(2, 3)
    return blocks.permute(1, 2, 0, 3).flatten(2)


def _pairs(dtype: torch.dtype) -> int:
    return 2 if dtype == torch.bfloat16 else 1
