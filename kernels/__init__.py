"""Fused kernels: each folder holds a plain PyTorch reference, a Triton and a C++ kernel, and the public function."""

from .dispatch import Backend, available_backends
from .feather_blend import feather_blend

__all__ = ["Backend", "available_backends", "feather_blend"]
