"""The measured cases: for each kernel shapes that matter, the same in plain PyTorch, and the least cost of any way."""

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import torch

from .case import Case

__all__ = ["KERNELS", "Case", "cases"]

# Every other file of this folder has a kernel's name.
_NAMES = sorted({path.stem for path in Path(__file__).parent.glob("*.py")} - {"__init__", "case"})
KERNELS: dict[str, Callable[[torch.dtype, torch.device], Iterator[Case]]] = {
    name: import_module(f".{name}", __package__).cases for name in _NAMES
}


def cases(kernel: str, dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Yield the cases of a kernel."""
    yield from KERNELS[kernel](dtype, device)
