"""The losses of StyleGAN2, each a function of tensors and networks to scalars. Source: Karras et al. 2020."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["gradient_square", "path_lengths"]


def gradient_square(critic: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """R1 without its factor: E |grad D(x)|^2 at real images, which can be differentiated.

    Args:
        critic: images [N, 3, H, W] to logits [N].
        images: real ones.
    Source: Mescheder et al. 2018, equation 9.
    """
    images = images.detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(images).sum(), images, create_graph=True)
    return slope.float().square().sum((1, 2, 3)).mean()


def path_lengths(images: Tensor, styles: Tensor, random: torch.Generator) -> Tensor:
    """How far images move for a step of their style vectors: |J^T y| for a random y, [N], differentiable.

    Args:
        images: [N, 3, H, W], made of `styles`.
        styles: [N, L, w_dim].
        random: the source of y, whose entries have a deviation of 1 / sqrt(H W).
    Source: Karras et al. 2020, equation 4.
    """
    noise = torch.randn(images.shape, generator=random, device=images.device) / math.sqrt(images[0, 0].numel())
    (slope,) = torch.autograd.grad((images * noise).sum(), styles, create_graph=True)
    return slope.float().square().sum(2).mean(1).sqrt()
