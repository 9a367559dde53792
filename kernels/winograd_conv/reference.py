"""winograd_conv in plain PyTorch: the same transforms, tile by tile, with one batched matrix product."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..op.precision import full_precision
from .weight import FAR, LANES, NEAR, Form, unpacked


def winograd_conv_reference(
    x: Tensor, matrices: Tensor, bias: Tensor | None, outputs: int, form: Form, padding: str, crop: int,
    style: Tensor | None = None, factor: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Convolve in float32 or wider, and stay there; arguments are those of op.py, validated."""
    wide = torch.promote_types(x.dtype, torch.float32)
    full = x.to(wide) if style is None else x.to(wide) * style.to(wide)[:, :, None, None]
    with full_precision(x.device):
        if form.spread:
            y = _spread(full.to(x.dtype).to(wide), matrices, outputs, form)
        else:
            y = _tiled(full, matrices, outputs, form, padding, x.dtype)
    high, across = y.shape[2:]
    if factor is not None:
        y = y * factor.to(wide)[:, :, None, None]
    if bias is not None:
        y = y + (bias.to(wide)[:, None, None] if bias.dim() == 1 else _nine_places(bias.to(wide), high, across))
    return y[:, :, crop : high - crop, crop : across - crop]


def finished(
    y: Tensor, noise: Tensor | None, strength: Tensor | None, slope: float, gain: float, clamp: float | None
) -> Tensor:
    """Add noise to a result in float32 or wider, activate and clamp it."""
    if noise is not None and strength is not None:
        y = y + strength.to(y.dtype) * noise.to(y.dtype)
    y = gain * torch.where(y > 0, y, slope * y)
    return y if clamp is None else y.clamp(-clamp, clamp)


def _tiled(
    x: Tensor, matrices: Tensor, outputs: int, form: Form, padding: str, dtype: torch.dtype
) -> Tensor:  # fmt: skip
    """Convolve a map tile by tile; `dtype` is that of the transformed input."""
    inputs, h, w = x.shape[1:]
    scale = 2 if form.doubles else 1
    high, across = (h // 2, w // 2) if form.groups > 1 else (scale * h, scale * w)
    ring = F.pad(x, (1, 1, 1, 1), mode="replicate" if padding == "replicate" else "constant")
    cells = _cells(ring, (high, across)) if form.groups > 1 else ring[:, None]  # [N, groups, C, rows, columns]
    reads = len(form.axis)
    step = 1 if form.doubles and not form.strided else form.made
    # The last tiles may begin inside of the map and end behind it; what they make there is cut off again.
    whole = [-(-(side - reads) // step) * step + reads for side in cells.shape[3:]]
    cells = F.pad(cells, (0, whole[1] - cells.shape[4], 0, whole[0] - cells.shape[3]))
    tiles = cells.unfold(3, reads, step).unfold(4, reads, step)
    sums = _forward(_forward(tiles, 5), 6).permute(5, 6, 0, 3, 4, 1, 2)  # [reads, reads, N, rows, columns, groups, C]
    filled = F.pad(sums.to(dtype).to(x.dtype), (0, -inputs % LANES))
    products = torch.bmm(filled.flatten(5).flatten(0, 1).flatten(1, 3), unpacked(matrices).to(x.dtype))
    parts = products.view(*sums.shape[:5], form.phases, -1)[..., :outputs]
    y = _back(_back(parts, 0, form.made), 1, form.made)  # [made, made, N, rows, columns, phases, K]
    y = y.permute(2, 5, 6, 3, 0, 4, 1).flatten(5, 6).flatten(3, 4)  # [N, phases, K, rows, columns] of cells
    return _interleaved(y, (h, w)) if form.phases > 1 else y[:, 0, :, :high, :across]


def _spread(x: Tensor, matrices: Tensor, outputs: int, form: Form) -> Tensor:
    """Convolve transposed, with the taps that stand among the sums of taps."""
    side = len(form.axis)
    taps = unpacked(matrices)[0].unflatten(0, (side, side, -1))[:, :, : x.shape[1], :outputs]
    order = torch.tensor([side - 2, side - 1, 0], device=x.device)  # rows of the outer taps, after them the middle one
    return F.conv_transpose2d(x, taps[order][:, order].permute(2, 3, 0, 1).to(x.dtype), stride=2)


def _cells(ring: Tensor, size: tuple[int, int]) -> Tensor:
    """The four maps of every second pixel of a padded map, one row and column more than the result: [N, 4, C, ...]."""
    high, across = (2 * side + 2 for side in size)
    return torch.stack([ring[:, :, i:high:2, j:across:2] for i in (0, 1) for j in (0, 1)], 1)


def _interleaved(y: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixel 2h + i of the result is cell h + i of phase i: [N, 4, K, rows, columns] to [N, K, 2 H, 2 W]."""
    h, w = size
    parts = [y[:, 2 * i + j, :, i : i + h, j : j + w] for i in (0, 1) for j in (0, 1)]
    return F.pixel_shuffle(torch.stack(parts, 2).flatten(1, 2), 2)


def _forward(tiles: Tensor, axis: int) -> Tensor:
    """Transform the input along one axis: 4 values to 4 sums, 3 to 3, or 2 as they are.

    It is written as sums, because a matrix product would spread NaN and infinities through its zeros too.
    """
    d = tiles.unbind(axis)
    if len(d) == 2:
        return tiles
    if len(d) == 3:
        return torch.stack([d[0] - d[1], d[1], d[2] - d[1]], axis)
    if len(d) == 6:
        p, q = NEAR**2, FAR**2
        near, far = (d[4] - q * d[2], NEAR * (d[3] - q * d[1])), (d[4] - p * d[2], FAR * (d[3] - p * d[1]))
        pairs = [even + sign * odd for even, odd in (near, far) for sign in (1, -1)]
        ends = (p * q * d[k] - (p + q) * d[k + 2] + d[k + 4] for k in (0, 1))
        return torch.stack([next(ends), *pairs, next(ends)], axis)
    return torch.stack([d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]], axis)


def _back(products: Tensor, axis: int, made: int) -> Tensor:
    """Transform products along one axis, to 1 to 3 neighbours of the result."""
    m = products.unbind(axis)
    if len(m) == 2:
        return torch.stack([m[0] + m[1]], axis)
    if len(m) == 3:
        return torch.stack([m[0] + m[1], m[1] + m[2]], axis)
    if len(m) == 6:
        even, odd = (m[1] + m[2], m[3] + m[4]), (NEAR * (m[1] - m[2]), FAR * (m[3] - m[4]))
        p, q = NEAR**2, FAR**2
        last = p * odd[0] + q * odd[1] + m[5]
        return torch.stack([m[0] + even[0] + even[1], odd[0] + odd[1], p * even[0] + q * even[1], last], axis)
    if made == 2:
        return torch.stack([m[0] + m[1] + m[2], m[1] - m[2] - m[3]], axis)
    return torch.stack([m[0] + m[1] + m[2], m[1] - m[2], m[1] + m[2] - m[3]], axis)


def _nine_places(bias: Tensor, high: int, across: int) -> Tensor:
    """Spread [N, K, 3, 3] over a map: the outer values go to the map's border, the centre to all pixels inside."""
    for axis, side in ((2, high), (3, across)):
        which = torch.ones(side, dtype=torch.int64, device=bias.device)
        which[0], which[-1] = 0, 2
        bias = bias.index_select(axis, which)
    return bias
