"""blur_noise_act: the low-pass filter behind a transposed convolution, and all that follows it, in one pass.

It has no graph.py: it is for CPUs, and exported networks hold the filter and bias_noise_act.
"""

from .op import blur_noise_act

__all__ = ["blur_noise_act"]
