"""rearrange: attention with one head and values up to 520 wide, without a large matrix of scores."""

from .op import rearrange

__all__ = ["rearrange"]
