"""rearrange: attention of one head with values up to 520 wide, without a large matrix of scores."""

from .op import rearrange

__all__ = ["rearrange"]
