"""The weights of winograd_conv: transformed once, and laid out as its C++ kernel reads them."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..op.gradients import differentiated, refuse_derivative
from ..op.precision import full_precision
from ..op.validation import FLOATING, refuse

__all__ = ["BLOCK", "LANES", "PRODUCTS", "unpacked", "winograd_weight"]

BLOCK = 32  # outputs whose weights lie together
LANES = 16  # inputs are filled up to a multiple of 16
PRODUCTS = {False: 16, True: 9}  # matrices, without and with up-sampling

# One axis of the transform of a kernel (g0, g1, g2).
_AXIS = {
    False: ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0)),
    True: ((1.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.0, 0.0, 1.0)),
}


def winograd_weight(weight: Tensor, *, upsample: bool = False) -> Tensor:
    """Transform a 3x3 kernel for winograd_conv: U = G g G', one matrix of inputs by outputs for each element of U.

    G is [[1, 0, 0], [1, 1, 1] / 2, [1, -1, 1] / 2, [0, 0, 1]], and with `upsample` [[1, 0, 0], [1, 1, 1], [0, 0, 1]].
    Sums are float64, rounded once to weight's dtype. For inference only: the result has no gradient.

    Args:
        weight: [K, C, 3, 3], K and C at least 1, of a convolution without stride, dilation or groups; any strides;
            float32, float16, bfloat16 or float64.
        upsample: the convolution follows nearest up-sampling by 2.

    Returns:
        [ceil(K / 32), P, C' / p, 32 p], weight's dtype: blocks of outputs; P = 16 matrices, 9 with `upsample`; C' the
        inputs filled up with zeros to a multiple of 16, of which p = 2 are neighbours in bfloat16, 1 elsewhere.

    Raises:
        ShapeError: weight has another shape or dtype.
    """
    shaped = weight.dim() == 4 and weight.shape[0] >= 1 and weight.shape[1] >= 1 and weight.shape[2:] == (3, 3)
    if not shaped or weight.dtype not in FLOATING:
        refuse("weight", weight, "[K, C, 3, 3], K and C at least 1, float32, float16, bfloat16 or float64")
    if differentiated(weight):
        refuse_derivative("winograd_weight")
    outputs, inputs = weight.shape[:2]
    axis = torch.tensor(_AXIS[upsample], dtype=torch.float64, device=weight.device)
    with full_precision(weight.device):
        matrices = torch.einsum("ia,jb,kcab->ijck", axis, axis, weight.detach().double()).flatten(0, 1)
    filled = F.pad(matrices, (0, -outputs % BLOCK, 0, -inputs % LANES)).to(weight.dtype)
    blocks = filled.unflatten(2, (-1, BLOCK)).permute(2, 0, 1, 3)  # [blocks, P, C', 32]
    pairs = _pairs(weight.dtype)
    return blocks.unflatten(2, (-1, pairs)).transpose(3, 4).flatten(3).contiguous()


def unpacked(matrices: Tensor) -> Tensor:
    """Return the result of `winograd_weight` as [P, C', K'], where K' is K filled up with zeros to a multiple of 32."""
    blocks = matrices.unflatten(3, (BLOCK, _pairs(matrices.dtype))).transpose(3, 4).flatten(2, 3)
    return blocks.permute(1, 2, 0, 3).flatten(2)


def _pairs(dtype: torch.dtype) -> int:
    return 2 if dtype == torch.bfloat16 else 1
