"""winograd_conv in plain PyTorch: the same transforms, tile by tile, with one batched matrix product."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .weight import PRODUCTS, unpacked

# One axis of the transform of the input, and of that of the result.
_FORWARD = {
    False: ((1.0, 0.0, -1.0, 0.0), (0.0, 1.0, 1.0, 0.0), (0.0, -1.0, 1.0, 0.0), (0.0, 1.0, 0.0, -1.0)),
    True: ((1.0, -1.0, 0.0), (0.0, 1.0, 0.0), (0.0, -1.0, 1.0)),
}
_BACK = {False: ((1.0, 1.0, 1.0, 0.0), (0.0, 1.0, -1.0, -1.0)), True: ((1.0, 1.0, 0.0), (0.0, 1.0, 1.0))}


def winograd_conv_reference(
    x: Tensor, matrices: Tensor, bias: Tensor | None, outputs: int, padding: str, crop: int
) -> Tensor:
    """Convolve in float32 or wider; arguments as in op.py, already validated."""
    upsample = matrices.shape[1] == PRODUCTS[True]
    wide = torch.promote_types(x.dtype, torch.float32)
    n, inputs, h, w = x.shape
    side, step = (3, 1) if upsample else (4, 2)
    high, across = (2 * h, 2 * w) if upsample else (h, w)
    # An odd last row or column is computed with its neighbour, which is cut off again.
    odd = (0, 0) if upsample else (w % 2, h % 2)
    ring = F.pad(x.to(wide), (1, 1, 1, 1), mode="replicate" if padding == "replicate" else "constant")
    tiles = F.pad(ring, (0, odd[0], 0, odd[1])).unfold(2, side, step).unfold(3, side, step)
    forward = x.new_tensor(_FORWARD[upsample], dtype=wide)
    sums = torch.einsum("ia,jb,nctuab->ijntuc", forward, forward, tiles).to(x.dtype).to(wide)
    down, right = sums.shape[3:5]
    u = unpacked(matrices).to(wide)[:, :inputs, :outputs]
    products = torch.bmm(sums.reshape(side * side, -1, inputs), u).view(side, side, n, down, right, outputs)
    back = x.new_tensor(_BACK[upsample], dtype=wide)
    y = torch.einsum("pi,qj,ijntuk->nktpuq", back, back, products).reshape(n, outputs, 2 * down, 2 * right)
    y = y[:, :, :high, :across]
    if bias is not None:
        y = y + (bias.to(wide)[:, None, None] if bias.dim() == 1 else _nine_places(bias.to(wide), high, across))
    return y[:, :, crop : high - crop, crop : across - crop].to(x.dtype)


def _nine_places(bias: Tensor, high: int, across: int) -> Tensor:
    """Spread [N, K, 3, 3] over a map: its border is the border's, its centre all of the inside."""
    for axis, side in ((2, high), (3, across)):
        which = torch.ones(side, dtype=torch.int64, device=bias.device)
        which[0], which[-1] = 0, 2
        bias = bias.index_select(axis, which)
    return bias
