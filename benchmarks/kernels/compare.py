"""Compares kernels with their peers in one run on the same inputs: first the results, then the times, in turns."""

import gc
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

from zellige.errors import TaskError

from ..conditions import conditions
from .cases import KERNELS, Case, cases
from .exported import Unmeasured
from .measure import Times, alternate, cache_bytes, keep_freed_memory, sets_needed
from .runners import PEERS, Inputs, Runner, makers

__all__ = ["PASSES", "compare", "compare_case", "inputs_of", "runners_of"]

PASSES = ("forward", "forward+backward")
_PEER_TOLERANCE = 10  # times the kernel's tolerance: peers that round more are still measured, and their rows say so


def compare(
    names: Sequence[str],
    dtypes: Sequence[torch.dtype],
    device: torch.device,
    against: Sequence[str] = PEERS,
    *,
    budget: float = 0.3,
) -> Iterator[dict[str, Any]]:
    """Measure kernels and peers, and yield the whole report anew after each shape and dtype.

    `results` has a row for each kernel, shape, dtype, pass and runner: `seconds` is the median of `calls`, with the
    tenth and ninetieth percentile; `ratio` the runner's time over the kernel's; `error` the largest error relative to
    the largest value (for gradients the mean error over the mean value), measured against plain PyTorch in a wider
    type; `gigabytes_per_second` the fewest bytes over the time; `percent_of_copy` that rate as a share of the rate of a
    `clone` of as many bytes from memory in the same rounds; `percent_of_matrix_rate` the share of the rate of a
    `matmul` of the same dtype, or None if arithmetic is no limit; `percent_of_limit` the larger share; `command` the
    command that repeats the row. `skipped` has the runners that could not be measured, with the reasons.

    Args:
        names: names of kernels; an empty list means all.
        dtypes: of the inputs.
        device: the device to run on.
        against: some of PEERS.
        budget: seconds for every runner, pass and shape.

    Raises:
        TaskError: a kernel or peer is unknown, a kernel is not for the device, or a kernel's result is wrong, so that
            it gets no time.
    """
    for given, known, what in ((names, KERNELS, "kernel"), (against, PEERS, "peer")):
        for name in given:
            if name not in known:
                raise TaskError(f"there is no {what} {name} to measure; choose from {', '.join(known)}.")
    for name in names:
        if next(cases(name, dtypes[0], device), None) is None:
            raise TaskError(f"{name} is not measured on {device.type}; choose --device cpu.")
    keep_freed_memory()
    report: dict[str, Any] = {"results": [], "skipped": []}
    common = {"cache_bytes": cache_bytes(device), "conditions": _conditions(against)}
    for name in names or KERNELS:
        for dtype in dtypes:
            for case in cases(name, dtype, device):
                found = compare_case(case, dtype, device, against, budget=budget)
                report = {key: rows + found[key] for key, rows in report.items()}
                yield report | common


def compare_case(
    case: Case, dtype: torch.dtype, device: torch.device, against: Sequence[str], *, budget: float
) -> dict[str, list[dict[str, Any]]]:
    """Measure one shape in all its passes, and return `results` and `skipped` of `compare`.

    Raises:
        TaskError: a result of the kernel is wrong.
    """
    report: dict[str, list[dict[str, Any]]] = {"results": [], "skipped": []}
    for stage in PASSES if case.training_bytes else PASSES[:1]:
        found = _measure(case, stage, dtype, device, against, budget)
        report = {key: rows + found[key] for key, rows in report.items()}
        gc.collect()
    return report


def inputs_of(case: Case, stage: str, device: torch.device) -> Inputs:
    """Draw sets of inputs that together are larger than the cache, the same at every call."""
    torch.manual_seed(0)
    first = case.inputs()
    tensors = [t for t in first if isinstance(t, Tensor)]
    training = stage != PASSES[0]
    result = case.kernel_call(*first)
    count = sets_needed(sum(t.nbytes for t in (*tensors, *([result] if training else []))), device)
    sets = [first, *(case.inputs() for _ in range(count - 1))]
    if not training:
        return Inputs(sets)
    leaves = [tuple(t.requires_grad_() if t.is_floating_point() else t for t in inputs) for inputs in sets]
    return Inputs(leaves, [torch.randn_like(result) for _ in sets])


def runners_of(
    case: Case, inputs: Inputs, against: Sequence[str]
) -> tuple[dict[str, tuple[Runner, float]], dict[str, str]]:
    """Return the runners that are right, each with its error, and the reasons why others are not measured.

    Raises:
        TaskError: the kernel itself is wrong.
    """
    right: dict[str, tuple[Runner, float]] = {}
    skipped: dict[str, str] = {}
    wide = tuple(_widened(t) for t in inputs.sets[0])
    slopes = None if inputs.slopes is None else [_widened(inputs.slopes[0])]
    wanted = Inputs([wide], slopes).calls(case.eager)[0]()
    for name, make in makers(case, inputs, against):
        try:
            runner = make()
            error = _error(case, runner.calls[0](), wanted, inputs)
            if not error <= case.tolerance * (1 if name == "zellige" else _PEER_TOLERANCE):
                sentence = f"differs from plain PyTorch by {error:.2g}"
                if name == "zellige":
                    raise TaskError(f"{case.kernel} {case.shape} {sentence}; no time is given.")
                raise Unmeasured(f"{name}: {sentence}")
            right[name] = runner, error
        except Unmeasured as reason:
            skipped[name] = str(reason)
    return right, skipped


def _measure(
    case: Case, stage: str, dtype: torch.dtype, device: torch.device, against: Sequence[str], budget: float
) -> dict[str, list[dict[str, Any]]]:
    with torch.no_grad():  # calls of the backward pass switch gradients on
        inputs = inputs_of(case, stage, device)
        right, skipped = runners_of(case, inputs, against)
        calls = {name: runner.calls for name, (runner, _) in right.items()}
        times = alternate(calls | _limits(case, len(inputs.sets), dtype, device), device, budget=budget)
    kind = str(dtype).removeprefix("torch.")
    common = {"kernel": case.kernel, "shape": case.shape, "dtype": kind, "device": device.type, "pass": stage}
    results = []
    for name, (runner, error) in right.items():
        peers = ",".join(against) if name == "zellige" else name.split("-")[0]
        command = f"zellige bench kernels {case.kernel} --dtype {kind} --device {device.type}"
        figures = _figures(case, stage, times, name, device)
        results.append(
            common
            | {"runner": name, "form": runner.form, "error": error}
            | figures
            | {"command": f"{command} --against {shlex.quote(peers)}"}
        )
    reasons = [common | {"runner": name, "reason": reason} for name, reason in skipped.items()]
    return {"results": results, "skipped": reasons}


def _limits(case: Case, count: int, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Return calls for the machine's limits: a copy of as many bytes, and a large matrix product if it matters."""
    copies = [torch.randn(case.least_bytes // 8, device=device) for _ in range(count)]
    calls: dict[str, Any] = {"copy": Inputs([(numbers,) for numbers in copies]).calls(torch.clone)}
    if case.operations:
        side = _matrix_side(device)
        calls["matmul"] = Inputs([tuple(torch.randn(2, side, side, device=device).to(dtype))]).calls(torch.matmul)
    return calls


def _matrix_side(device: torch.device) -> int:
    return 8192 if device.type == "cuda" else 1024


def _figures(case: Case, stage: str, times: dict[str, Times], name: str, device: torch.device) -> dict[str, Any]:
    training = stage != PASSES[0]
    own = times[name]
    rate = (case.training_bytes if training else case.least_bytes) / own.median
    of_copy = 100 * rate * times["copy"].median / case.least_bytes
    of_matrix_rate = None
    if "matmul" in times:
        operations = case.operations * (3 if training else 1)
        of_matrix_rate = 100 * operations / own.median * times["matmul"].median / (2 * _matrix_side(device) ** 3)
    return {
        "seconds": own.median, "seconds_p10": own.low, "seconds_p90": own.high, "calls": own.calls,
        "ratio": own.median / times["zellige"].median, "gigabytes_per_second": rate / 1e9, "percent_of_copy": of_copy,
        "percent_of_matrix_rate": of_matrix_rate, "percent_of_limit": max(of_copy, of_matrix_rate or 0.0),
    }  # fmt: skip


def _widened(t: Tensor) -> Tensor:
    """Return a tensor in a wider dtype: float64 for float32, and float32 for halves."""
    if not t.is_floating_point():
        return t
    return t.detach().to(torch.float64 if t.dtype == torch.float32 else torch.float32).requires_grad_(t.requires_grad)


def _error(case: Case, results: Sequence[Tensor], wanted: Sequence[Tensor], inputs: Inputs) -> float:
    if inputs.slopes is None:
        pair = (results[0], wanted[0])
        actual, right = (case.seen(t, *inputs.sets[0]) if case.seen else t.double() for t in pair)
        return (actual - right).abs().max().item() / max(right.abs().max().item(), 1e-30)
    # A value next to a kink may fall on the other side of it, so the largest error of a gradient says nothing.
    return max(
        (actual.double() - right.double()).abs().sum().item() / max(right.double().abs().sum().item(), 1e-30)
        for actual, right in zip(results, wanted, strict=True)
    )


def _conditions(against: Sequence[str]) -> dict[str, Any]:
    found = conditions()
    # These decide how torch's threads wait between calls; by default libgomp's spin for some milliseconds.
    found["openmp"] = {name: os.environ.get(name) for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")}
    for package in ("triton", *against):
        with suppress(PackageNotFoundError):
            found["versions"][package] = version({"liger": "liger-kernel"}.get(package, package))
    return found
