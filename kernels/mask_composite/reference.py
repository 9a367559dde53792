"""mask_composite in plain PyTorch: the definition of right."""

import torch
from torch import Tensor

from ..op.levels import bytes_of


def mask_composite_reference(
    foreground: Tensor, background: Tensor, mask: Tensor, logits: bool, output: str = "float"
) -> Tensor:
    """Compute the result in float32, for float64 maps in float64; arguments are those of op.py, validated."""
    front, back, share, rest = _finished(foreground, background, mask, logits)
    y = front * share + back * rest
    return bytes_of(y.permute(0, 2, 3, 1)).contiguous() if output == "uint8" else y.to(foreground.dtype)


def mask_composite_backward_reference(
    gradient: Tensor, foreground: Tensor, background: Tensor, mask: Tensor, logits: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of foreground, background and mask, in the precision of the sums, without autograd."""
    front, back, share, rest = _finished(foreground, background, mask, logits)
    gradient = gradient.to(front.dtype)
    d_mask = (gradient * (front - back)).sum(1, keepdim=True)
    d_front, d_back = gradient * share, gradient * rest
    if not logits:
        return d_front, d_back, d_mask
    return d_front * (1 - front * front), d_back * (1 - back * back), d_mask * share * rest


def _finished(
    foreground: Tensor, background: Tensor, mask: Tensor, logits: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return both images and the shares of both, in the precision of the sums."""
    wide = torch.promote_types(foreground.dtype, torch.float32)
    foreground, background, mask = (t.to(wide) for t in (foreground, background, mask))
    if not logits:
        return foreground, background, mask, 1 - mask
    # sigmoid(-m) is 1 - sigmoid(m) without the digits that the difference loses.
    return foreground.tanh(), background.tanh(), mask.sigmoid(), (-mask).sigmoid()
