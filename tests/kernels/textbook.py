"""What the kernels compute, from their papers' formulas: plain PyTorch that shares nothing with the references.

In the dtype of the maps it is eager PyTorch's result, in float64 the exact one that kernels are judged by.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def affine_relu(x: Tensor, scale: Tensor, shift: Tensor, upsample: bool = False) -> Tensor:
    scale, shift = ((t[:, :, None, None] if t.dim() == 2 else t).to(x.dtype) for t in (scale, shift))
    y = F.relu(x * scale + shift)
    return F.interpolate(y, scale_factor=2.0) if upsample else y


def bias_noise_act(
    x: Tensor, bias: Tensor, noise: Tensor | None = None, strength: Tensor | None = None, *,
    factor: Tensor | None = None, clamp: float | None = None,
) -> Tensor:  # fmt: skip
    if factor is not None:
        x = x * factor.to(x.dtype)[:, :, None, None]
    if noise is not None and strength is not None:
        x = x + strength.to(x.dtype) * noise.to(x.dtype)
    x = x + bias.to(x.dtype)[:, None, None]
    # As F.leaky_relu, but that the slope at 0 is 1, as the formula has it, and not 0.2.
    y = torch.where(x >= 0, x, 0.2 * x) * 2**0.5
    return y if clamp is None else y.clamp(-clamp, clamp)


def blur_noise_act(x: Tensor, bias: Tensor, *others: Tensor, **how: Any) -> Tensor:
    """Convolve with the whole filter of 4 x 4."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype, device=x.device)
    filters = torch.outer(taps, taps).expand(x.shape[1], 1, 4, 4) / 16
    return bias_noise_act(F.conv2d(x, filters, padding=1, groups=x.shape[1]), bias, *others, **how)


def fir_resample(x: Tensor, up: bool) -> Tensor:
    """Convolve with the whole filter of 4 x 4."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype, device=x.device)
    filters = torch.outer(taps, taps).expand(x.shape[1], 1, 4, 4)
    if up:
        return F.conv_transpose2d(x, filters / 16, stride=2, padding=1, groups=x.shape[1])
    return F.conv2d(x, filters / 64, stride=2, padding=1, groups=x.shape[1])


def glu_layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    left, right = x.chunk(2, 1)
    weight, bias = (t[:, None, None].to(x.dtype) for t in (weight, bias))
    return (F.layer_norm(left, left.shape[1:]) * weight + bias) * right.sigmoid()


def interleaved(x: Tensor) -> Tensor:
    """Put four phases together."""
    n, channels, h, w = x.shape
    whole = x.new_empty(n, channels // 4, 2 * h, 2 * w)
    for phase, values in enumerate(x.chunk(4, 1)):
        whole[:, :, phase // 2 :: 2, phase % 2 :: 2] = values
    return whole


def mask_composite(foreground: Tensor, background: Tensor, mask: Tensor, logits: bool = True) -> Tensor:
    if not logits:
        return foreground * mask + background * (1 - mask)
    return foreground.tanh() * mask.sigmoid() + background.tanh() * (1 - mask.sigmoid())


def rearrange(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.mT * q.shape[2] ** -0.5, 2) @ v


def distances(points: Tensor, centroids: Tensor, metric: str) -> Tensor:
    """Distances [M, K] in float64; what is not finite is farther than all."""
    points, centroids = points.double()[:, None], centroids.double()[None]
    if metric == "euclidean":
        far = (points - centroids).square().sum(2)
    else:
        far = -F.cosine_similarity(points, centroids, dim=2, eps=1e-300)
    return torch.where(far.isfinite(), far, torch.inf)


def winograd_conv(
    x: Tensor, weight: Tensor, bias: Tensor, upsample: bool = False, padding: str = "constant", crop: int = 0
) -> Tensor:
    """Convolve the padded map with the weights [1, K, C, 3, 3], and add the biases [K], or [N, K, 9] for nine parts."""
    wide = torch.promote_types(x.dtype, torch.float32)  # in halves torch's own spreads NaN beyond what reads it
    if upsample:
        x = F.interpolate(x, scale_factor=2.0)
    h, w = x.shape[2:]
    y = F.conv2d(F.pad(x.to(wide), (1, 1, 1, 1), mode=padding), weight[0].to(wide))
    if bias.dim() == 1:
        y += bias[:, None, None]
    else:
        for i, row in enumerate((slice(0, 1), slice(1, h - 1), slice(h - 1, h))):
            for j, column in enumerate((slice(0, 1), slice(1, w - 1), slice(w - 1, w))):
                y[:, :, row, column] += bias[:, :, 3 * i + j, None, None]
    return y[:, :, crop : h - crop, crop : w - crop].to(x.dtype)


def strided_conv(x: Tensor, weight: Tensor, bias: Tensor, transposed: bool = False) -> Tensor:
    """Convolve by stride 2 and padding 1 with the weights [1, K, C, 4, 4], or [1, C, K, 4, 4] of a transposed one."""
    wide = torch.promote_types(x.dtype, torch.float32)
    # The padding meets weights in a transposed convolution too, for NaN in weights to reach the border.
    padded, taps = F.pad(x.to(wide), (1, 1, 1, 1)), weight[0].to(wide)
    convolved = (
        F.conv_transpose2d(padded, taps, stride=2, padding=3) if transposed else F.conv2d(padded, taps, stride=2)
    )
    return (convolved + bias[:, None, None]).to(x.dtype)


def feather_blend(
    patches: Tensor, positions: Tensor, window_rows: Tensor, window_columns: Tensor, size: tuple[int, int]
) -> Tensor:
    """Ask every pixel for its weighted mean: [H, W, C]."""
    wide = torch.promote_types(patches.dtype, torch.float32)
    _, channels, rows, columns = patches.shape
    y, x = (torch.arange(side, device=patches.device) for side in size)
    sums = torch.zeros(*size, channels, dtype=wide, device=patches.device)
    totals = torch.zeros(*size, 1, dtype=wide, device=patches.device)
    for patch, (top, left) in zip(patches.to(wide), positions.tolist(), strict=True):
        row, column = y - top, x - left
        inside = ((row >= 0) & (row < rows))[:, None] & ((column >= 0) & (column < columns))
        row, column = row.clamp(0, rows - 1), column.clamp(0, columns - 1)
        weight = (window_rows.to(wide)[row][:, None] * window_columns.to(wide)[column] * inside)[..., None]
        values = patch[:, row][:, :, column].permute(1, 2, 0)
        sums += torch.where(inside[..., None], weight * values, 0)
        totals += weight
    return torch.where(totals > 0, sums / totals, 0)


def wave_field(
    down: Tensor, across: Tensor, noise: Tensor, rows: Tensor, columns: Tensor, every: int = 1, first: int = 0
) -> Tensor:
    """Ask each row of the map for its place among the rows of factors; in the dtype of `down`."""
    across, noise = across.to(down.dtype), noise.to(down.dtype)
    k, table = down.shape[2] // 2, noise.shape[2]
    lines = []
    for i in range(rows.shape[1]):
        place = (2 * (first + i) + 1 - every) / (2 * every) if across.shape[1] > 1 else 0
        factors = across[:, int(place)]
        if place % 1:
            factors = factors + place % 1 * (across[:, int(place) + 1] - factors)
        a, b, c = factors.split([k, k, table], 2)  # [N, T, K | L]
        cos, sin = down[:, i, None].chunk(2, 2)
        lines.append(torch.cat([cos * a + sin * b, noise[rows[:, i, None], columns] * c], 2))
    y = torch.stack(lines, 1) if lines else down.new_empty(len(down), 0, across.shape[2], k + table)
    return y.permute(0, 3, 1, 2)


def styled_conv(
    x: Tensor, weight: Tensor, bias: Tensor, style: Tensor, factor: Tensor, noise: Tensor, strength: Tensor,
    transposed: bool,
) -> Tensor:  # fmt: skip
    """StyleGAN2's layer with scaled activations, before the filter if it is transposed."""
    x = x * style.to(x.dtype)[:, :, None, None]
    y = F.conv_transpose2d(x, weight[0], stride=2) if transposed else F.conv2d(x, weight[0], padding=1)
    return bias_noise_act(y, bias, noise, strength, factor=factor, clamp=1.5)
