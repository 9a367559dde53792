"""Starts networks with spectral norm for training, and folds it into plain weights for checkpoints."""

import math

from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

__all__ = ["initialise", "plain_state"]


def initialise(module: nn.Module, *, spectral: bool, apart: tuple[type[nn.Module], ...] = ()) -> None:
    """Draw a network's first weights as COCO-GAN's paper does.

    Convolutions are He-normal, linear layers LeCun-normal, both truncated; biases are zero.

    Args:
        module: the network.
        spectral: whether these layers get spectral norm.
        apart: classes whose layers are skipped: they have first weights of their own, and no spectral norm.
    """
    for part in list(module.modules()):
        for layer in () if isinstance(part, apart) else part.children():
            if not isinstance(layer, nn.Conv2d | nn.Linear):
                continue
            gain = 2.0 if isinstance(layer, nn.Conv2d) else 1.0
            nn.init.trunc_normal_(layer.weight, std=math.sqrt(gain / layer.weight[0].numel()))
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
            if spectral:
                spectral_norm(layer, eps=1e-12)


def plain_state(module: nn.Module) -> dict[str, Tensor]:
    """The module's state dict with every spectral norm folded into its weight: W / sigma(W) under the plain name."""
    state: dict[str, Tensor] = {}
    for prefix, part in module.named_modules():
        path = f"{prefix}." if prefix else ""
        if isinstance(part, parametrize.ParametrizationList) or ".parametrizations." in f".{path}":
            continue
        for name, tensor in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
            if name not in part._non_persistent_buffers_set:
                state[path + name] = tensor.detach()
        if parametrize.is_parametrized(part, "weight"):
            state[path + "weight"] = getattr(part, "weight").detach()  # noqa: B009  a computed property
    return state
