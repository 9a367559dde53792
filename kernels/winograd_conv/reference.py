"""winograd_conv in plain PyTorch: the same transforms, tile by tile, with one batched matrix product."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..op.precision import full_precision
from .weight import PRODUCTS, unpacked


def winograd_conv_reference(
    x: Tensor, matrices: Tensor, bias: Tensor | None, outputs: int, padding: str, crop: int
) -> Tensor:
    """Convolve in float32 or wider; arguments are those of op.py, validated."""
    upsample = matrices.shape[1] == PRODUCTS[True]
    wide = torch.promote_types(x.dtype, torch.float32)
    n, inputs, h, w = x.shape
    side, step = (3, 1) if upsample else (4, 2)
    high, across = (2 * h, 2 * w) if upsample else (h, w)
    # An odd last row or column is computed together with one behind it, which is cut off again.
    odd = (0, 0) if upsample else (w % 2, h % 2)
    ring = F.pad(x.to(wide), (1, 1, 1, 1), mode="replicate" if padding == "replicate" else "constant")
    tiles = F.pad(ring, (0, odd[0], 0, odd[1])).unfold(2, side, step).unfold(3, side, step)
    sums = _forward(_forward(tiles, 4), 5).permute(4, 5, 0, 2, 3, 1)  # [side, side, N, rows, columns, C] of tiles
    rounded = sums.to(x.dtype).to(wide).reshape(side * side, -1, inputs)
    with full_precision(x.device):
        products = torch.bmm(rounded, unpacked(matrices).to(wide)[:, :inputs, :outputs])
    y = _back(_back(products.view(*sums.shape[:-1], outputs), 0), 1)  # [2, 2, N, rows, columns, K]
    y = y.permute(2, 5, 3, 0, 4, 1).reshape(n, outputs, 2 * sums.shape[3], 2 * sums.shape[4])[:, :, :high, :across]
    if bias is not None:
        y = y + (bias.to(wide)[:, None, None] if bias.dim() == 1 else _nine_places(bias.to(wide), high, across))
    return y[:, :, crop : high - crop, crop : across - crop].to(x.dtype)


def _forward(tiles: Tensor, axis: int) -> Tensor:
    """Transform the input along one axis: 4 values to 4 sums, or 3 of the small map to 3.

    It is written as sums, because a matrix product would spread NaN and infinities through its zeros too.
    """
    d = tiles.unbind(axis)
    if len(d) == 3:
        return torch.stack([d[0] - d[1], d[1], d[2] - d[1]], axis)
    return torch.stack([d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]], axis)


def _back(products: Tensor, axis: int) -> Tensor:
    """Transform products along one axis, to 2 neighbours of the result."""
    m = products.unbind(axis)
    if len(m) == 3:
        return torch.stack([m[0] + m[1], m[1] + m[2]], axis)
    return torch.stack([m[0] + m[1] + m[2], m[1] - m[2] - m[3]], axis)


def _nine_places(bias: Tensor, high: int, across: int) -> Tensor:
    """Spread [N, K, 3, 3] over a map: the outer values go to the map's border, the centre to all pixels inside."""
    for axis, side in ((2, high), (3, across)):
        which = torch.ones(side, dtype=torch.int64, device=bias.device)
        which[0], which[-1] = 0, 2
        bias = bias.index_select(axis, which)
    return bias
