"""winograd_conv: convolutions with 4/9 of their multiplications, 3x3 and 4x4 of stride 2; 1/4 behind nearest x2.

It has no graph.py: its weights are transformed for the C++ kernel alone, and exported networks hold the convolution.
"""

from .op import winograd_conv
from .weight import winograd_weight

__all__ = ["winograd_conv", "winograd_weight"]
