"""How long whole batches take, in alternating rounds: what a caller waits, from the call to the finished images."""

import time
from collections.abc import Mapping

import torch

from ..kernels.measure import Call, keep_freed_memory, rest

__all__ = ["alternate", "matrix_product", "prepare"]

_TURN = 1.0  # seconds of a runner in each round, at least one call
_MOST_CALLS = 50  # in one round
_SHORT = 0.01  # seconds; of a longer call, waking the threads up is no part that counts


def prepare(device: torch.device) -> None:
    """Set what holds for all runners of this process."""
    keep_freed_memory()
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # eager chooses its convolutions too
        torch.backends.cudnn.allow_tf32 = False


def matrix_product(dtype: torch.dtype, device: torch.device) -> tuple[Call, int]:
    """A large product, whose rate is what a machine computes at best, and its floating-point operations."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    return lambda: torch.matmul(a, b), 2 * side**3


def alternate(calls: Mapping[str, Call], device: torch.device, rounds: int) -> dict[str, list[float]]:
    """Time calls in turns, so that whatever slows the machine for a while slows all of them.

    Args:
        calls: by name, each already called once.
        device: that they run on; it has finished when a call's time is taken.
        rounds: of turns; a turn is as many calls as take a second.
    Returns:
        seconds of every call, by name.
    """
    counts = {name: max(1, min(_MOST_CALLS, round(_TURN / _seconds(call, device)))) for name, call in calls.items()}
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            if device.type == "cpu":
                rest()
            if counts[name] * _SHORT > _TURN or counts[name] == _MOST_CALLS:
                _seconds(call, device)
            found[name] += [_seconds(call, device) for _ in range(counts[name])]
    return found


def _seconds(call: Call, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    before = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - before
