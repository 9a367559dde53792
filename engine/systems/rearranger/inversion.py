"""Inversion: the style vectors whose image comes nearest to a given one, by descent.

Source: Karras et al. 2020, appendix D, with two changes of ours: every layer has a style vector of its own (W+; Abdal
et al. 2019), and images are compared at several scales, because a perceptual distance needs a downloaded network.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..stylegan2.generator import Generator

__all__ = ["inverted"]

_SAMPLES = 1000  # latents that give mean and deviation of w
_RATE = 0.1  # of Adam
_RISE, _FALL = 0.05, 0.25  # shares of the steps in which the rate rises and falls
_NOISE, _UNTIL = 0.05, 0.75  # noise on w in deviations, and the share of the steps in which it fades
_SCALES = 4
_NEAR = 0.01  # weight of the squared distance of layers' vectors from their mean, in deviations


def inverted(generator: Generator, images: Tensor, steps: int, seed: int = 0) -> Tensor:
    """Style vectors [N, L, w_dim] float32 whose images come near to given ones.

    Args:
        generator: a generator in float32.
        images: [N, 3, R, R] in [-1, 1].
        steps: of descent, 1 or more.
        seed: of the noise on style vectors; each image has noise of its own, so that it does not depend on others.
    """
    random = torch.Generator(images.device).manual_seed(seed)
    with torch.no_grad():
        z = torch.randn(_SAMPLES, generator.config.z_dim, generator=random, device=images.device)
        w = generator.map(z)
        mean, deviation = w.mean(0), (w - w.mean(0)).square().sum(1).mean().sqrt() / math.sqrt(w.shape[1])
    found = [_one(generator, image, mean, deviation, steps, random) for image in images.split(1)]
    return torch.cat(found)


def _one(
    generator: Generator, image: Tensor, mean: Tensor, deviation: Tensor, steps: int, random: torch.Generator
) -> Tensor:
    styles = mean.expand(1, generator.config.style_count, -1).clone().requires_grad_(True)
    optimiser = torch.optim.Adam([styles], betas=(0.9, 0.999))
    best, least = styles.detach().clone(), math.inf
    for step in range(steps):
        done = step / steps
        ramp = min(1.0, (1 - done) / _FALL)
        ramp = 0.5 - 0.5 * math.cos(ramp * math.pi)
        optimiser.param_groups[0]["lr"] = _RATE * ramp * min(1.0, (done + 1 / steps) / _RISE)
        strength = deviation * _NOISE * max(0.0, 1 - done / _UNTIL) ** 2
        noise = torch.randn(styles.shape, generator=random, device=styles.device) * strength
        made = generator.synthesise(styles + noise)
        loss = _distance(made, image)
        spread = (styles - styles.mean(1, keepdim=True)).div(deviation).square().mean()
        optimiser.zero_grad()
        (loss + _NEAR * spread).backward()
        if done >= _UNTIL and float(loss.detach()) < least:
            best, least = styles.detach().clone(), float(loss.detach())
        optimiser.step()
    return best if math.isfinite(least) else styles.detach()


def _distance(made: Tensor, wanted: Tensor) -> Tensor:
    """Mean absolute difference, over several scales."""
    total = made.new_zeros(())
    for _ in range(_SCALES):
        total = total + F.l1_loss(made, wanted)
        if made.shape[2] < 4:
            break
        made, wanted = F.avg_pool2d(made, 2), F.avg_pool2d(wanted, 2)
    return total
