"""Buffers that follow from a configuration, so that no checkpoint holds them and no meta device allocates them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["fill_constants", "register_constant"]


def register_constant(module: nn.Module, name: str, shape: tuple[int, ...], make: Callable[[], Tensor]) -> None:
    """Give a module a float32 buffer that `make` computes; on the meta device it has a shape and no values.

    Args:
        module: the buffer is not part of its state.
        name: of the buffer.
        shape: of what `make` returns.
        make: a function of a module, or a `functools.partial` of one, so that the network can be pickled.
    """
    makers: dict[str, Callable[[], Tensor]] = module.__dict__.setdefault("constants", {})
    makers[name] = make
    built_without_memory = torch.get_default_device().type == "meta"
    value = torch.empty(shape, dtype=torch.float32, device="meta") if built_without_memory else make()
    module.register_buffer(name, value, persistent=False)


def fill_constants(network: nn.Module) -> None:
    """Compute the constants of a network that was built on the meta device.

    Call it once the network has its weights: after `load_state_dict(assign=True)`, where constants still are on the
    meta device and become CPU tensors, or after `to_empty`, where they hold arbitrary numbers.
    """
    for part in network.modules():
        makers: dict[str, Callable[[], Tensor]] = part.__dict__.get("constants", {})
        for name, make in makers.items():
            buffer: Any = getattr(part, name)
            if buffer.is_meta:
                setattr(part, name, make().to(buffer.dtype))
            else:
                buffer.copy_(make())
