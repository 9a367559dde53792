"""StyleGAN2's low-pass filter where it stands beside a convolution of stride 2."""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["FIR", "blur"]

FIR = (1.0, 3.0, 3.0, 1.0)  # along each axis, before it is normed to a sum of 1


def blur(x: Tensor, padding: int, gain: float = 1.0) -> Tensor:
    """Filter every channel with the outer product of [1, 3, 3, 1], normed to a sum of `gain`.

    Args:
        x: [N, C, H, W], floating.
        padding: cells of zeros on every side: 1 behind a transposed convolution of stride 2, 2 in front of one of
            stride 2.
        gain: 4 after zeros were inserted between pixels, else 1.
    Returns:
        [N, C, H + 2 padding - 3, W + 2 padding - 3].
    Source: Karras et al. 2020, upfirdn2d.
    """
    line = torch.tensor(FIR, device=x.device)
    line = line / line.sum()
    taps = (gain * line[:, None] * line).to(x.dtype)
    return F.conv2d(x, taps.expand(x.shape[1], 1, 4, 4), padding=padding, groups=x.shape[1])
