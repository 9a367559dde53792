"""winograd_conv: 3x3 convolution, also of an up-sampled map, with 4 or 9 of 16 of its multiplications left.

It has no graph.py: its weights are transformed for the C++ kernel alone, and exported networks hold the convolution.
"""

from .op import winograd_conv
from .weight import winograd_weight

__all__ = ["winograd_conv", "winograd_weight"]
