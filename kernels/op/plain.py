"""The kernels' functions as standard operators of PyTorch, for compilers and exporters that know none of ours."""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["active", "plain_operators"]

# A global and no context variable: torch.compile guards on it, so what was compiled with one value is not run with the
# other, and reading it costs a call 20 ns.
active = False


@contextmanager
def plain_operators() -> Iterator[None]:
    """Let the functions of this package compute by standard operators, in the dtype of the maps.

    Under it what torch.compile, torch.export and the ONNX exporter trace has no operator named zellige. Results are
    those of the kernels but for rounding: sums and products are rounded one by one, as PyTorch rounds them.
    `feather_blend` and `nearest_centroid`, which belong to no network, stay as they are. It holds for all threads of
    the process; it may be nested, and ends when the block does, however it ends.
    """
    global active
    before, active = active, True
    try:
        yield
    finally:
        active = before
