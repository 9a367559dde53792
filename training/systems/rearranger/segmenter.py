"""The one-shot segmenter: classes of generated images, learnt from one painted image or a few.

Source: Tritrong et al., "Repurposing GANs for One-Shot Semantic Part Segmentation", CVPR 2021.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Segmenter", "fit_segmenter"]

_CHANNELS, _DILATIONS = (128, 64, 64, 32), (1, 2, 1, 2, 1)
_RATE = _DECAY = 1e-3


class Segmenter(nn.Module):
    """Maps of all blocks of a generator to logits of classes at each pixel.

    Args:
        channels: of all maps together.
        classes: number of classes.
        side: of the images.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int, classes: int, side: int) -> None:
        super().__init__()
        self.side = side
        widths = (channels, *_CHANNELS, classes)
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=dilation, dilation=dilation)
            for a, b, dilation in zip(widths, widths[1:], _DILATIONS, strict=False)
        )
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("deviation", torch.ones(channels, 1, 1))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits [N, classes, R, R] of maps [N, C, S, S] of every block."""
        x = (self.stacked(maps) - self.mean) / self.deviation
        for number, layer in enumerate(self.layers):
            x = layer(F.leaky_relu(x, 0.2) if number else x)
        return x

    def stacked(self, maps: Sequence[Tensor]) -> Tensor:
        """The maps, enlarged to the image's side, as channels of one."""
        whole = [F.interpolate(x.float(), (self.side, self.side), mode="bilinear", align_corners=False) for x in maps]
        return torch.cat(whole, 1)


def fit_segmenter(maps: Sequence[Tensor], labels: Tensor, classes: int, steps: int) -> Segmenter:
    """Learn classes from painted images; deterministic under torch's seed.

    Args:
        maps: of all blocks of the painted images, [N, C, S, S] each.
        labels: int64 [N, R, R].
        classes: number of classes.
        steps: of Adam, all painted images in each.
    """
    made = Segmenter(sum(x.shape[1] for x in maps), classes, labels.shape[1]).to(labels.device)
    whole = made.stacked(maps)
    made.mean.copy_(whole.mean((0, 2, 3))[:, None, None])
    made.deviation.copy_(whole.std((0, 2, 3))[:, None, None].clamp(min=1e-6))
    optimiser = torch.optim.Adam(made.parameters(), lr=_RATE, weight_decay=_DECAY)
    for _ in range(steps):
        loss = F.cross_entropy(made(maps), labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    return made.eval().requires_grad_(False)
