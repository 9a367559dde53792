"""The losses of OneGAN that need no network, pure functions from tensors to a scalar.

Cross entropy of classes and distances of features are not here, because PyTorch has them.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from zellige.errors import ShapeError

__all__ = [
    "LEAST_LOG_VARIANCE",
    "background_weight",
    "embedding_norm",
    "gaussian_nll",
    "kl_to_standard_normal",
    "mask_balance",
    "mask_decisiveness",
    "mask_regularizer",
    "real_or_fake",
    "weighted_l1",
]

# The least log-variance. A table of embeddings is a finite set of points, so a deviation of 0 would make their
# likelihood infinite.
LEAST_LOG_VARIANCE = -8.0


def embedding_norm(*vectors: Tensor) -> Tensor:
    """Keep embeddings near the origin and near each other: L_Rv = ||v_p||^2 + ||v_c||^2 + ||v_bg||^2, batch mean.

    Args:
        vectors: any number of them, [N, d] each; d may differ.
    Source: OneGAN supplementary, section B.
    """
    return torch.stack([vector.square().sum(dim=1).mean() for vector in vectors]).sum()


def mask_balance(mask: Tensor, share: float = 0.5) -> Tensor:
    """Pull each mask to its share of the picture: L_MB = |mean(m) - s|, mean over the batch.

    Args:
        mask: [N, 1, H, W] in [0, 1].
        share: s, the share of a picture that masks should cover; published 1/2.
    Source: OneGAN supplementary, section B.
    """
    return (mask.flatten(1).mean(dim=1) - share).abs().mean()


def mask_decisiveness(mask: Tensor, share: float = 0.5) -> Tensor:
    """Push each mask to 0 and 1: L_MD = |mean(max(0, m')) - s| + |mean(min(0, m')) + 1 - s|, where m' = 2 m - 1.

    It vanishes if exactly the share s of a mask's pixels is 1 and all others are 0.

    Args:
        mask: [N, 1, H, W] in [0, 1].
        share: s, the share of a picture that masks should cover; published 1/2.
    Source: OneGAN supplementary, section B.
    """
    signed = 2 * mask.flatten(1) - 1
    inside, outside = signed.clamp_min(0).mean(dim=1), signed.clamp_max(0).mean(dim=1)
    return ((inside - share).abs() + (outside + 1 - share).abs()).mean()


def mask_regularizer(mask: Tensor, share: float = 0.5) -> Tensor:
    """Return L_RM = L_MB + 0.1 L_MD of masks [N, 1, H, W] in [0, 1], which should cover a share of their pictures.

    Source: OneGAN supplementary, section B.
    """
    return mask_balance(mask, share) + 0.1 * mask_decisiveness(mask, share)


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mu, sigma^2) || N(0, 1)) = sum over d of (mu^2 + sigma^2 - 1 - ln sigma^2) / 2, mean over the batch.

    Args:
        mean, log_variance: [N, d].
    Source: Kingma & Welling 2014, appendix B.
    """
    return 0.5 * (mean.square() + log_variance.expm1() - log_variance).sum(dim=1).mean()


def gaussian_nll(target: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """-ln N(x; mu, sigma^2) = (ln 2 pi + ln sigma^2 + (x - mu)^2 / sigma^2) / 2, mean over d and batch.

    Unlike the divergence above it is a mean over d, so that its weight does not depend on the length of the code. The
    log-variance is limited to LEAST_LOG_VARIANCE from below.

    Args:
        target, mean, log_variance: [N, d].
    Source: this project; the paper leaves open how codes are regressed.
    """
    bounded = log_variance.clamp_min(LEAST_LOG_VARIANCE)
    return 0.5 * (math.log(2 * math.pi) + bounded + (target - mean).square() * (-bounded).exp()).mean()


def real_or_fake(logits: Tensor, real: bool) -> Tensor:
    """Return the binary cross entropy of logits that are all real or all fake: mean of softplus(-x) or softplus(x).

    Args:
        logits: any shape; those of a patch discriminator are [N, 1, h, w], and all count alike.
        real: whether they are real, or a generator wants them to be taken for real.
    Source: Goodfellow et al. 2014; for patches Isola et al. 2017.
    """
    return F.softplus(-logits if real else logits).mean()


def weighted_l1(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean of the absolute difference, sum(w |a - b|) / sum(w), over the batch; 0 without weight.

    No gradient flows into the weights, because a mask could lower the error by growing over the pixels that are hard.

    Args:
        first, second: [N, C, H, W].
        weight: [N, 1, H, W], >= 0.
    Raises:
        ShapeError: the weights are not one for each pixel.
    """
    if weight.shape != (len(first), 1, *first.shape[2:]):
        raise ShapeError(
            f"weight must be [N, 1, H, W] for images {tuple(first.shape)}, so {(len(first), 1, *first.shape[2:])}; "
            f"got {tuple(weight.shape)}"
        )
    weight = weight.detach()
    total = weight.sum() * first.shape[1]
    return ((first - second).abs() * weight).sum() / total.clamp_min(torch.finfo(total.dtype).tiny)


def background_weight(mask: Tensor) -> Tensor:
    """Return how much a pixel tells about the background: 1 - m if the mask m is under 1/2, else 0.

    Args:
        mask: [N, 1, H, W] in [0, 1].
    """
    return torch.where(mask < 0.5, 1 - mask, 0)
