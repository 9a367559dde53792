"""The kernels' functions as standard operators of PyTorch, for compilers and exporters that know none of ours."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["plain_operators", "this_thread"]


class _Thread(threading.local):
    """The state of one thread, because another thread may serve images while this one exports a network.

    It is an attribute and no context variable, because torch.compile guards on attributes: code that was compiled with
    one value is not run with the other. Reading it costs a call 30 ns.
    """

    active = False


this_thread = _Thread()


@contextmanager
def plain_operators() -> Iterator[None]:
    """Let the functions of this package compute with standard operators, in the dtype of the maps.

    A network that torch.compile, torch.export or the ONNX exporter traces in this block has no operator named zellige.
    Results are those of the kernels but for rounding: sums and products are rounded one by one, as PyTorch rounds them.
    `feather_blend` and `winograd_conv`, which belong to no exported network, stay as they are. `wave_field` consists of
    standard operators in every exported network, in this block or not.

    The block holds for the thread that entered it and for no other. It may be nested. An exception ends it too.
    """
    before, this_thread.active = this_thread.active, True
    try:
        yield
    finally:
        this_thread.active = before
