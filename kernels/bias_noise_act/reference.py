"""bias_noise_act in plain PyTorch: the definition of right."""

import torch
from torch import Tensor


def bias_noise_act_reference(
    x: Tensor, bias: Tensor, noise: Tensor | None, strength: Tensor | None, factor: Tensor | None, slope: float,
    gain: float, clamp: float | None,
) -> Tensor:  # fmt: skip
    """Compute the result in float32, for float64 maps in float64; arguments are those of op.py, validated."""
    value = _before_act(x if factor is None else scaled(x, factor), bias, noise, strength)
    y = gain * torch.where(value >= 0, value, slope * value)
    if clamp is not None:
        y = torch.where(outside(y, clamp), y.sign() * clamp, y)
    return y.to(x.dtype)


def bias_noise_act_backward_reference(
    gradient: Tensor,
    x: Tensor,
    bias: Tensor,
    noise: Tensor | None,
    strength: Tensor | None,
    slope: float,
    gain: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x and bias, and the sum of x's over channels [N, H, W], in the precision of the sums."""
    positive = _before_act(x, bias, noise, strength) >= 0
    gradient = gain * gradient.to(_wide(x))
    gradient = torch.where(positive, gradient, slope * gradient)
    return gradient, gradient.sum((0, 2, 3)), gradient.sum(1)


def noise_gradients(over_channels: Tensor, noise: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of noise and strength from the sum over channels that every backend makes."""
    over_channels = over_channels[:, None]
    dstrength = (over_channels * noise.to(over_channels.dtype)).sum().reshape(strength.shape)
    return (over_channels * strength.to(over_channels.dtype)).sum_to_size(noise.shape), dstrength


def scaled(x: Tensor, factor: Tensor) -> Tensor:
    """Return x times the factors [N, C], in the precision of the sums."""
    return x.to(_wide(x)) * factor.to(_wide(x))[:, :, None, None]


def outside(y: Tensor, clamp: float) -> Tensor:
    """Tell which values the clamp changes; NaN is none of them, and no gradient goes through them."""
    return y.detach().abs() > clamp


def _before_act(x: Tensor, bias: Tensor, noise: Tensor | None, strength: Tensor | None) -> Tensor:
    wide = _wide(x)
    value = x.to(wide)
    if noise is not None and strength is not None:
        value = value + strength.to(wide) * noise.to(wide)
    return value + bias.to(wide)[:, None, None]


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
