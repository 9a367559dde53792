"""Buffers that follow from a network's configuration; no checkpoint stores them, and the meta device computes none."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["fill_constants", "register_constant"]


def register_constant(module: nn.Module, name: str, shape: tuple[int, ...], make: Callable[[], Tensor]) -> None:
    """Give a module a float32 buffer that `make` computes; on the meta device it has a shape and no values.

    Args:
        module: the module that gets the buffer; its state dict does not hold it.
        name: the buffer's name.
        shape: the buffer's shape.
        make: a module-level function or a `functools.partial` of one, because other functions cannot be pickled.
    """
    makers: dict[str, Callable[[], Tensor]] = module.__dict__.setdefault("constants", {})
    makers[name] = make
    built_without_memory = torch.get_default_device().type == "meta"
    value = torch.empty(shape, dtype=torch.float32, device="meta") if built_without_memory else make()
    module.register_buffer(name, value, persistent=False)


def fill_constants(network: nn.Module) -> None:
    """Compute the constants of a network that was built on the meta device.

    Call it once the network has its weights. After `load_state_dict(assign=True)` the constants still are on the meta
    device, and become CPU tensors. After `to_empty` they hold arbitrary numbers, which are overwritten.
    """
    for part in network.modules():
        makers: dict[str, Callable[[], Tensor]] = part.__dict__.get("constants", {})
        for name, make in makers.items():
            buffer: Any = getattr(part, name)
            if buffer.is_meta:
                setattr(part, name, make().to(buffer.dtype))
            else:
                buffer.copy_(make())
