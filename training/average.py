"""What every training does beside its steps: weights are averaged, and learning rates fade."""

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
        ema: decay that the average ends with, 0 to 1.
    """
    updates += 1
    # A short memory at first, because the untrained weights must not linger in the average.
    k = int(updates)
    get_ema_multi_avg_fn(min(ema, (1 + k) / (10 + k)))(average, current, None)


def fade_rates(
    optimisers: Mapping[str, Optimizer], rates: Mapping[str, float], progress: float, decay_from: float
) -> None:
    """Set learning rates that fall linearly to 0 at the end of a run.

    Args:
        optimisers: by name.
        rates: full rate of each.
        progress: share of the run that is done, 0 to 1.
        decay_from: share of the run up to which rates are full.
    """
    fade = 1.0 if progress <= decay_from else (1 - progress) / (1 - decay_from)
    for name, optimiser in optimisers.items():
        for group in optimiser.param_groups:
            group["lr"] = rates[name] * fade
