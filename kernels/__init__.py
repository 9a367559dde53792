"""Fused kernels: each folder holds a plain PyTorch reference, a Triton and a C++ kernel, and the public function."""

from .affine_relu import affine_relu
from .dispatch import Backend, available_backends
from .feather_blend import feather_blend

__all__ = ["Backend", "affine_relu", "available_backends", "feather_blend"]
