"""winograd_conv: 3x3 convolution with 4/9 of its multiplications, or 1/4 of them if the map is up-sampled first.

It has no graph.py: its weights are transformed for the C++ kernel alone, and exported networks hold the convolution.
"""

from .op import winograd_conv
from .weight import winograd_weight

__all__ = ["winograd_conv", "winograd_weight"]
