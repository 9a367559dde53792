"""Losses of adversarial training, each a pure function of tensors."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Adversarial", "critic_loss", "generator_loss", "gradient_penalty", "logistic"]

Adversarial = Literal["wasserstein", "hinge"]


def critic_loss(kind: Adversarial, real: Tensor, fake: Tensor) -> Tensor:
    """Return the critic's loss: E[fake] - E[real] (Wasserstein), or E[relu(1 - real)] + E[relu(1 + fake)] (hinge).

    Args:
        kind: "wasserstein" or "hinge".
        real, fake: critic values [N].
    Source: Arjovsky et al. 2017; Lim & Ye 2017.
    """
    if kind == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    return fake.mean() - real.mean()


def generator_loss(fake: Tensor) -> Tensor:
    """Return the generator's loss, which is -E[fake] for both kinds, from critic values [N]."""
    return -fake.mean()


def logistic(logits: Tensor, real: bool) -> Tensor:
    """-log D, or -log(1 - D), mean over the batch; 0.69 if D is 1/2 everywhere.

    Args:
        logits: of D, [N].
        real: whether D should take them for real.
    Source: Goodfellow et al. 2014, the non-saturating form.
    """
    return F.softplus(-logits if real else logits).mean()


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, random: torch.Generator, *, quirks: bool = False
) -> Tensor:
    """Pull the slope of the critic between real and fake samples to 1.

    E[(||grad D(s)||_2 - 1)^2] at s = eps fake + (1 - eps) real, with one eps and one norm a sample. With `quirks`, eps
    is drawn for every number, and norms run over the height alone: one for each sample, column and channel.

    Args:
        critic: images [N, C, H, W] to values [N]; bind the coordinates before the call.
        real, fake: [N, C, H, W].
        random: source of eps.
        quirks: take the variant of the published code, which differs from the paper.
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
