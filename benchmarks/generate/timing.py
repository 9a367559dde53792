"""Times whole batches in alternating rounds: the time that a caller waits, from the call to the finished images."""

import time
from collections.abc import Mapping

import torch

from ..kernels.measure import Call, keep_freed_memory, rest

__all__ = ["alternate", "matrix_product", "prepare"]

_TURN = 1.0  # seconds of a runner in each round, in which it makes at least one call
_MOST_CALLS = 50  # calls in one round
_SHORT = 0.01  # seconds; in longer calls the time to wake threads up does not matter


def prepare(device: torch.device) -> None:
    """Make the settings for all runners of this process."""
    keep_freed_memory()
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # so that eager chooses its fastest convolutions too
        torch.backends.cudnn.allow_tf32 = False


def matrix_product(dtype: torch.dtype, device: torch.device) -> tuple[Call, int]:
    """Return a large matrix product, whose rate is the machine's best, and its number of floating-point operations."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    return lambda: torch.matmul(a, b), 2 * side**3


def alternate(calls: Mapping[str, Call], device: torch.device, rounds: int) -> dict[str, list[float]]:
    """Time calls in turns, so that a disturbance of the machine slows all of them.

    Args:
        calls: the calls by name; each was called once before.
        device: the device that they run on; it has finished when a call's time is taken.
        rounds: number of rounds; a turn is as many calls as take a second.
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
