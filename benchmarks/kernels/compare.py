"""One kernel against its peers, in one run, on the same inputs."""

import gc
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from zellige.errors import TaskError

from ..conditions import conditions
from .cases import KERNELS, Case, cases
from .measure import cache_bytes, keep_freed_memory, seconds_of

__all__ = ["PEERS", "compare"]

PEERS = ("eager", "compile")
_MOST_SETS = 64


def compare(
    names: Sequence[str], dtypes: Sequence[torch.dtype], device: torch.device, against: Sequence[str] = PEERS
) -> dict[str, Any]:
    """Measure kernels and peers.

    A row holds kernel, shape, dtype, pass ("forward" or "forward+backward"), runner, seconds, `ratio` (its time over
    the kernel's), gigabytes_per_second (the fewest bytes over the time), `percent_of_copy` (of what `clone` of as many
    bytes reaches in the same run, from memory), `error` (largest difference from plain PyTorch, relative to the largest
    value) and the command that repeats it.

    Args:
        names: of kernels; none means all.
        dtypes: of the inputs.
        device: to run on.
        against: peers.

    Raises:
        TaskError: an unknown kernel or peer, or a result that is wrong: no time is given for it.
    """
    for given, known, what in ((names, KERNELS, "kernel"), (against, PEERS, "peer")):
        for name in given:
            if name not in known:
                raise TaskError(f"there is no {what} {name} to measure; choose from {', '.join(known)}.")
    keep_freed_memory()
    rows: list[dict[str, Any]] = []
    for name in names or KERNELS:
        for dtype in dtypes:
            for case in cases(name, dtype, device):
                rows += _rows(case, dtype, device, against)
                gc.collect()
    return {"results": rows, "cache_bytes": cache_bytes(device), "conditions": conditions()}


def _rows(case: Case, dtype: torch.dtype, device: torch.device, against: Sequence[str]) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    first = case.inputs()
    wanted = case.eager(*first)
    error = _error(case.kernel_call(*first), wanted)
    if not error <= case.tolerance:
        raise TaskError(f"{case.kernel} {case.shape} differs from plain PyTorch by {error:.2g}; no time is given.")
    size = sum(t.nbytes for t in first if isinstance(t, Tensor))
    count = min(max(2, -(-2 * cache_bytes(device) // max(size, 1))), _MOST_SETS)
    sets = [first, *(case.inputs() for _ in range(count - 1))]
    numbers = torch.randn(case.least_bytes // 8, device=device)
    copies = [(numbers.clone(),) for _ in range(count)]
    copy = case.least_bytes / seconds_of(torch.clone, copies, device)
    del copies
    runners: dict[str, Callable[..., Tensor]] = {"zellige": case.kernel_call}
    if "eager" in against:
        runners["eager"] = case.eager
    if "compile" in against:
        torch.compiler.reset()
        runners["compile"] = torch.compile(case.eager, dynamic=False)
    rows: list[dict[str, Any]] = []
    for stage in ("forward", "forward+backward") if case.differentiable else ("forward",):
        ours = 0.0
        for name, function in runners.items():
            call, inputs = (function, sets) if stage == "forward" else _training(function, sets)
            with torch.set_grad_enabled(stage != "forward"):
                seconds = seconds_of(call, inputs, device)
            ours = ours or seconds
            row = {
                "kernel": case.kernel, "shape": case.shape, "dtype": str(dtype).removeprefix("torch."),
                "device": device.type, "pass": stage, "runner": name, "seconds": seconds, "ratio": seconds / ours,
                "error": error if name == "zellige" else 0.0,
                "command": f"zellige bench kernels {case.kernel} --dtype {str(dtype).removeprefix('torch.')}",
            }  # fmt: skip
            if stage == "forward":
                rate = case.least_bytes / seconds
                row |= {"gigabytes_per_second": rate / 1e9, "percent_of_copy": 100 * rate / copy}
            rows.append(row)
    return rows


def _training(
    function: Callable[..., Tensor], sets: Sequence[tuple[Any, ...]]
) -> tuple[Callable[..., Any], list[tuple[Any, ...]]]:
    """Forward and backward as one call; the last entry of each set is the gradient of the result."""
    ready = []
    for inputs in sets:
        leaves = tuple(t.detach().requires_grad_() if t.is_floating_point() else t for t in inputs)
        with torch.no_grad():
            slope = torch.randn_like(function(*inputs))
        ready.append((*leaves, slope))

    def call(*inputs: Tensor) -> None:
        *leaves, slope = inputs
        torch.autograd.grad(function(*leaves), [t for t in leaves if t.requires_grad], slope)

    return call, ready


def _error(actual: Tensor, wanted: Tensor) -> float:
    difference = (actual.double() - wanted.double()).abs().max().item()
    return difference / max(wanted.double().abs().max().item(), 1e-30)
