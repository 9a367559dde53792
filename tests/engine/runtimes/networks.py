"""A little network of the kind that runtimes run: classes and latents to finished images."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE = 12


class Painter(nn.Module):
    """Classes [N] int64 and latents [N, 6] to bytes [N, 12, 12, 3], or to floating images [N, 3, 12, 12]."""

    def __init__(self, output: str = "uint8", seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.output = output
        self.table, self.stem, self.conv = nn.Embedding(5, 6), nn.Linear(6, 8 * 36), nn.Conv2d(8, 3, 3, padding=1)
        self.requires_grad_(False).eval()

    def forward(self, classes: Tensor, latents: Tensor) -> Tensor:
        maps = self.stem(latents + self.table(classes)).unflatten(1, (8, 6, 6)).relu()
        images = self.conv(F.interpolate(maps, scale_factor=2.0)).mul(3).tanh()
        if self.output == "float":
            return images
        return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def rows(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(5, (count,), generator=random), torch.randn(count, 6, generator=random)
