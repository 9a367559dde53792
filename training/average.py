"""Averaged weights and fading learning rates, which every training has beside its steps."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.swa_utils import get_ema_multi_avg_fn

__all__ = ["fade_rates", "follow"]


@torch.no_grad()
def follow(average: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor, ema: float) -> None:
    """Move averaged weights towards the current ones, in place, and count the update.

    a = d a + (1 - d) w, where d = min(ema, (1 + k) / (10 + k)) at the k-th update.

    Args:
        average, current: floating tensors of the same shapes.
        updates: int64 scalar, the number of updates so far; it is raised by one.
        ema: the decay that is reached in the end, 0 to 1.
    """
    updates += 1
    # The decay is small at first, because the untrained weights must not linger in the average.
    k = int(updates)
    get_ema_multi_avg_fn(min(ema, (1 + k) / (10 + k)))(average, current, None)


def fade_rates(
    optimisers: Mapping[str, Optimizer], rates: Mapping[str, float], progress: float, decay_from: float
) -> None:
    """Set learning rates that fall linearly to 0 at the end of a run.

    Args:
        optimisers: the optimisers by name.
        rates: the full rate of each.
        progress: share of the run that is done, 0 to 1.
        decay_from: share of the run after which rates fall.
    """
    fade = 1.0 if progress <= decay_from else (1 - progress) / (1 - decay_from)
    for name, optimiser in optimisers.items():
        for group in optimiser.param_groups:
            group["lr"] = rates[name] * fade
