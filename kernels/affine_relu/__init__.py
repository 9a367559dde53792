"""affine_relu: a scale and a shift for each channel of each sample, then ReLU, in one pass."""

from .op import affine_relu

__all__ = ["affine_relu"]
