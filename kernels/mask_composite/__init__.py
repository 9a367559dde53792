"""mask_composite: a foreground over a background under a mask, from raw head outputs, in one pass."""

from .op import mask_composite

__all__ = ["mask_composite"]
