"""The weighted mean of overlapping patches, as pixels."""

from .op import feather_blend

__all__ = ["feather_blend"]
