"""Losses of adversarial training, each a pure function of tensors."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Adversarial", "critic_loss", "diversity_shortfall", "generator_loss", "gradient_penalty", "pair_distance"]

Adversarial = Literal["wasserstein", "hinge"]


def critic_loss(kind: Adversarial, real: Tensor, fake: Tensor) -> Tensor:
    """What the critic minimises: E[fake] - E[real] (Wasserstein), or E[relu(1 - real)] + E[relu(1 + fake)] (hinge).

    Args:
        kind: "wasserstein" or "hinge".
        real, fake: critic values [N].
    Source: Arjovsky et al. 2017; Lim & Ye 2017.
    """
    if kind == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    return fake.mean() - real.mean()


def generator_loss(fake: Tensor) -> Tensor:
    """What the generator minimises under either kind: -E[fake], from critic values [N]."""
    return -fake.mean()


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, random: torch.Generator, *, quirks: bool = False
) -> Tensor:
    """Pull the slope of the critic between real and fake samples to 1.

    E[(||grad D(s)||_2 - 1)^2] at s = eps fake + (1 - eps) real, one eps and one norm a sample. With `quirks`, as in
    COCO-GAN's reference code: eps is drawn for every number, and the norm is taken over the height alone, one slope for
    each sample, column and channel.

    Args:
        critic: images [N, C, H, W] to values [N]; bind the coordinates before the call.
        real, fake: [N, C, H, W].
        random: source of eps.
        quirks: the reference code's variant.
    Returns:
        a scalar that can be differentiated.
    Source: Gulrajani et al. 2017, equation 3.
    """
    shape = real.shape if quirks else (len(real), 1, 1, 1)
    eps = torch.rand(shape, generator=random, device=real.device, dtype=real.dtype)
    between = torch.lerp(real.detach(), fake.detach(), eps).requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    norm = (slope.square().sum(dim=2) if quirks else slope.square().sum(dim=(1, 2, 3))).add(1e-12).sqrt()
    return (norm - 1).square().mean()


def pair_distance(images: Tensor) -> Tensor:
    """Mean absolute difference between images 2k and 2k + 1 of a batch [2n, C, H, W]: a scalar."""
    return (images[0::2] - images[1::2]).abs().mean()


def diversity_shortfall(fake: Tensor, real_distance: Tensor | float, target: float) -> Tensor:
    """How far generated images of equal coordinates fall short of the variety of real ones.

    relu(target - d(fake) / d(real)), d the mean absolute difference within the pairs of `pair_distance`. Unlike the
    mode-seeking ratio |z - z'| / d(fake), it vanishes once the images differ as much as they should.

    Args:
        fake: [2n, C, H, W]; images 2k and 2k + 1 share coordinates and differ in their latents.
        real_distance: running mean of d over real pairs.
        target: wanted ratio; 1 means as varied as the data.
    Source: this project, after Mao et al. 2019 (mode seeking GANs).
    """
    return F.relu(target - pair_distance(fake) / real_distance)
