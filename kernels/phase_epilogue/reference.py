"""phase_epilogue in plain PyTorch: the definition of right."""

from torch import Tensor

from ..affine_relu.reference import affine_relu_reference
from ..glu_layer_norm.reference import glu_layer_norm_reference


def phase_epilogue_reference(x: Tensor, weight: Tensor, bias: Tensor, activation: str, eps: float) -> Tensor:
    """Interleave the phases, then activate them; arguments are those of op.py, validated."""
    n, channels, h, w = x.shape
    phases = x.reshape(n, 2, 2, channels // 4, h, w)  # [N, row phase, column phase, K, H, W]
    whole = phases.permute(0, 3, 4, 1, 5, 2).reshape(n, channels // 4, 2 * h, 2 * w)
    if activation == "affine_relu":
        return affine_relu_reference(whole, weight, bias, False)
    return glu_layer_norm_reference(whole, weight, bias, eps)
