"""What a mapper reads: maps of classes as one-hot channels, and edges as white lines on black."""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["edges_of", "lines_of", "one_hot"]

_FAINT = 0.5  # slope of the levels 0 to 1 across two pixels that makes a white edge


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Maps of classes int64 [N, H, W] as float32 [N, classes, H, W]."""
    return F.one_hot(labels, classes).permute(0, 3, 1, 2).float()


def edges_of(images: Tensor) -> Tensor:
    """The edges of images: the length of Sobel's gradient of the mean of the colours, white from a slope on.

    Args:
        images: [N, 3, H, W] in [-1, 1].
    Returns:
        [N, 3, H, W] in [-1, 1], -1 where there is no edge; three equal channels.
    """
    grey = images.float().mean(1, keepdim=True) / 2
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], device=images.device) / 4
    filters = torch.stack([across, across.T])[:, None]
    slopes = F.conv2d(F.pad(grey, (1, 1, 1, 1), mode="replicate"), filters)
    length = slopes.square().sum(1, keepdim=True).sqrt() / _FAINT
    return (length.clamp(max=1) * 2 - 1).expand(-1, 3, -1, -1)


def lines_of(images: Tensor) -> Tensor:
    """Drawings as white lines on black, whichever of the two the paper is; arguments and result as of `edges_of`."""
    grey = images.float().mean(1, keepdim=True)
    paper_is_white = grey.mean((2, 3), keepdim=True) > 0
    return torch.where(paper_is_white, -grey, grey).expand(-1, 3, -1, -1)
