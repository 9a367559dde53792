"""blur_noise_act in plain PyTorch: the definition of right."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..bias_noise_act.reference import bias_noise_act_reference


def blur_noise_act_reference(
    x: Tensor, bias: Tensor, noise: Tensor | None, strength: Tensor | None, factor: Tensor | None, slope: float,
    gain: float, clamp: float | None,
) -> Tensor:  # fmt: skip
    """Compute the result in float32, for float64 maps in float64; arguments are those of op.py, validated."""
    value = F.pad(x.to(torch.promote_types(x.dtype, torch.float32)), (1, 1, 1, 1))
    for axis in (2, 3):
        a, b, c, d = (value.narrow(axis, k, value.shape[axis] - 3) for k in range(4))
        value = 0.25 * a + 0.75 * b + 0.75 * c + 0.25 * d
    y = bias_noise_act_reference(value, bias, noise, strength, factor, slope, gain, clamp)
    return y.to(x.dtype)
