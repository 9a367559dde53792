"""Memory orders of maps [N, C, H, W]: by plane (NCHW) or by pixel (channels-last)."""

import torch
from torch import Tensor

__all__ = ["empty_like", "empty_map", "in_memory_order", "is_channels_last", "packed"]


def is_channels_last(x: Tensor) -> bool:
    """Tell whether a map is laid out by pixel; a map that is laid out both ways counts as by plane."""
    return not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def packed(x: Tensor, channels_last: bool) -> Tensor:
    """Return the map itself if it lies in this memory order without gaps, else a copy that does."""
    return x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def empty_map(x: Tensor, shape: tuple[int, int, int, int], dtype: torch.dtype | None = None) -> Tensor:
    """Allocate a map in the memory order of another one."""
    memory_format = torch.channels_last if is_channels_last(x) else torch.contiguous_format
    return torch.empty(shape, dtype=dtype or x.dtype, device=x.device, memory_format=memory_format)


def empty_like(x: Tensor) -> Tensor:
    """Allocate a map without gaps that has the shape, dtype and memory order of another one."""
    n, c, h, w = x.shape
    return empty_map(x, (n, c, h, w))


def in_memory_order(x: Tensor, channels_last: bool) -> Tensor:
    """View a packed map in the order of its memory: [N, H, W, C] or [N, C, H, W]."""
    return x.detach().permute(0, 2, 3, 1) if channels_last else x.detach()
