"""The steps of all parts but the tests: their names, and calls that return their results."""

import json
import math
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..generate import compare as generation
from ..generate.subjects import REFERENCES
from ..kernels.cases import KERNELS, Case, cases
from ..kernels.compare import PASSES, compare_case, inputs_of, runners_of
from .machine import condition_steps
from .picture import panorama_steps
from .supervisor import Options

__all__ = ["STEPS"]

Steps = Iterator[tuple[str, Callable[[], dict[str, Any]]]]
_OF_LIMIT = 85.0  # percent of the limit, the aim for kernels that stream
_RUNNER_SECONDS = 0.06  # time of a runner for every pass and shape: about 40 calls of 0.2 ms
_ROWS = 12
_PRECISIONS = {"float32": "fp32", "bfloat16": "bf16"}
_GENERATING_ROUNDS = 3


def _all_cases(options: Options) -> Iterator[tuple[str, Case, torch.dtype]]:
    """Yield every case with a name, one dtype after the other, because time may run out."""
    device = torch.device(options.device)
    for dtype in options.dtypes:
        for kernel in options.kernels or KERNELS:
            for case in cases(kernel, getattr(torch, dtype), device):
                yield f"{kernel} {case.shape} {dtype}", case, getattr(torch, dtype)


def _once(case: Case, function: Callable[..., Any]) -> None:
    """Run forward, and forward with backward if the case has a backward pass."""
    inputs = case.inputs()
    with torch.no_grad():
        y = function(*inputs)
    if case.training_bytes:
        leaves = [t.detach().requires_grad_() if t.is_floating_point() else t for t in inputs]
        with torch.enable_grad():
            wanted = [t for t in leaves if t.requires_grad]
            torch.autograd.grad(function(*leaves), wanted, torch.randn_like(y))


def _compile_steps(options: Options) -> Steps:
    """Compare kernels and compiled peers with plain PyTorch, in the forms that are measured later.

    Compilers keep their builds on disk, and many processes build faster than one. Choices that torch.compile tuned
    while other processes used the device are not kept. For matrix products they would be kept, so the benchmark
    compiles these.
    """
    from torch._inductor import config as inductor  # the import takes a second, and only this part needs it

    device = torch.device(options.device)
    for name, case, _ in _all_cases(options):

        def call(case: Case = case) -> dict[str, Any]:
            peers = ["compile"] if "compile" in options.against and not case.operations else []
            skipped: dict[str, str] = {}
            with torch.no_grad(), inductor.patch(autotune_local_cache=False):
                for stage in PASSES if case.training_bytes else PASSES[:1]:
                    skipped |= runners_of(case, inputs_of(case, stage, device), peers)[1]
            return {"skipped": skipped}

        yield name, call


def _tune_steps(options: Options) -> Steps:
    """Let the kernels measure their configurations, alone on the device, and report their choices."""
    for name, case, _ in _all_cases(options):

        def call(case: Case = case) -> dict[str, Any]:
            torch.manual_seed(0)
            known = _chosen()
            _once(case, case.kernel_call)
            return {"configurations": [choice for key, choice in _chosen().items() if key not in known]}

        yield name, call


def _chosen() -> dict[tuple[str, str], dict[str, Any]]:
    """Return the choices of our kernels' autotuners in this process, by function and key.

    The milliseconds of the candidates (median, and two quantiles) are those of the last key; a case has one for each
    function.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for name, module in list(sys.modules.items()):
        for attribute, tuner in vars(module).items() if name.startswith("zellige.kernels.") else ():
            if type(tuner).__name__ != "Autotuner":
                continue
            function = f"{name.removeprefix('zellige.kernels.').removesuffix('.triton')}.{attribute}"
            times = {
                str(config): _finite(value) for config, value in (getattr(tuner, "configs_timings", None) or {}).items()
            }
            for key, config in tuner.cache.items():
                choice = {"function": function, "key": str(key), "chosen": str(config), "milliseconds": times}
                found[function, str(key)] = choice
    return found


def _finite(times: Any) -> Any:
    """Return times for JSON, in which infinite ones, of configurations that do not fit the device, are None."""
    if isinstance(times, float):
        return times if math.isfinite(times) else None
    return [_finite(time) for time in times]


def _bench_steps(options: Options) -> Steps:
    """Measure one shape in each step, so that a step that is cut off or dies costs only its shape."""
    device = torch.device(options.device)
    for name, case, dtype in _all_cases(options):

        def call(case: Case = case, dtype: torch.dtype = dtype) -> dict[str, Any]:
            return compare_case(case, dtype, device, options.against, budget=_RUNNER_SECONDS)

        yield name, call


def _generate_steps(options: Options) -> Steps:
    """Compare reference networks at batch 1, 8 and 64 with eager and compiled PyTorch, one measurement a step."""
    device = torch.device(options.device)
    precisions = [_PRECISIONS[dtype] for dtype in options.dtypes if dtype in _PRECISIONS]
    for precision in precisions:
        for model in REFERENCES:
            for batch in (1, 8, 64):
                call = partial(_generated, model, batch, precision, device)
                yield f"{model} {precision} batch {batch}", call


def _generated(model: str, batch: int, precision: str, device: torch.device) -> dict[str, Any]:
    [report] = generation.compare(model, [batch], [precision], device, ["eager", "compile"], _GENERATING_ROUNDS)
    return report


def _profile_steps(options: Options) -> Steps:
    """Profile the cases that missed their aims in OUT/bench.json."""
    file = Path(options.out) / "bench.json"
    report = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"steps": []}
    rows = [row for step in report["steps"] for row in step.get("result", {}).get("results", [])]
    missed = {
        (row["kernel"], row["shape"], row["dtype"])
        for row in rows
        if row["ratio"] < 1 or (row["runner"] == "zellige" and row["percent_of_limit"] < _OF_LIMIT)
    }
    for name, case, _ in _all_cases(options):
        if any(name == f"{kernel} {shape} {dtype}" for kernel, shape, dtype in missed):
            yield name, partial(_profile, case)


def _profile(case: Case) -> dict[str, Any]:
    torch.manual_seed(0)
    _once(case, case.kernel_call)
    with torch.profiler.profile() as profiler:
        for _ in range(20):
            _once(case, case.kernel_call)
    functions = [
        {"name": event.key, "calls": event.count, "microseconds": event.self_device_time_total or 0.0,
         "cpu_microseconds": event.self_cpu_time_total}
        for event in profiler.key_averages()
    ]  # fmt: skip
    functions.sort(key=lambda row: (row["microseconds"], row["cpu_microseconds"]), reverse=True)
    return {"functions": functions[:_ROWS]}


STEPS: dict[str, Callable[[Options], Steps]] = {
    "conditions": condition_steps,
    "compile": _compile_steps,
    "tune": _tune_steps,
    "bench": _bench_steps,
    "generate": _generate_steps,
    "panorama": panorama_steps,
    "profile": _profile_steps,
}
