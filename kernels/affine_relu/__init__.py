"""affine_relu: a scale and a shift for each channel of each sample, then ReLU, in one pass.

affine_relu_rows also takes factors that are given for some rows only, and a map to add.
"""

from .op import affine_relu
from .rows import affine_relu_rows

__all__ = ["affine_relu", "affine_relu_rows"]
