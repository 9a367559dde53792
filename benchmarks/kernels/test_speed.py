"""The same cases and runners under pytest-benchmark: `pytest benchmarks/kernels --benchmark-only`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import pytest
import torch

from zellige.benchmarks.kernels.cases import KERNELS, Case
from zellige.benchmarks.kernels.compare import PASSES, inputs_of, runners_of
from zellige.benchmarks.kernels.measure import keep_freed_memory

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPES = (torch.float32, torch.bfloat16)


@dataclass(frozen=True)
class _Suite:
    case: Case
    dtype: torch.dtype
    stage: str

    def __str__(self) -> str:
        return f"{self.case.kernel} {self.case.shape} {str(self.dtype).removeprefix('torch.')} {self.stage}"


def _suites() -> Iterator[_Suite]:
    for make in KERNELS.values():
        for dtype in DTYPES:
            for case in make(dtype, DEVICE):
                for stage in PASSES if case.training_bytes else PASSES[:1]:
                    yield _Suite(case, dtype, stage)


def _names(case: Case, stage: str) -> Iterator[str]:
    yield from ("zellige", "eager", *case.peers, "compile")
    if stage == PASSES[0]:
        yield from ("onnxruntime", "openvino")


@pytest.fixture(scope="module", autouse=True)
def _warm_heap() -> None:
    keep_freed_memory()


# The test is parametrised over suites first, so that runners of a group run one after the other.
@pytest.mark.parametrize(
    ("suite", "runner"),
    [
        pytest.param(suite, name, id=f"{suite}, {name}")
        for suite in _suites()
        for name in _names(suite.case, suite.stage)
    ],
)
def test_speed(benchmark: Any, suite: _Suite, runner: str) -> None:
    """Compare a runner with plain PyTorch, then time it on sets of inputs in turn."""
    benchmark.group = str(suite)
    with torch.no_grad():
        inputs = inputs_of(suite.case, suite.stage, DEVICE)
        right, skipped = runners_of(suite.case, inputs, [runner.split("-")[0]] if runner != "zellige" else [])
        if runner not in right:
            pytest.skip(skipped[runner])
        ready, error = right[runner]
        benchmark.extra_info["error"] = error
        calls = cycle(ready.calls)
        benchmark(_finished(lambda: next(calls)()))


def _finished(call: Callable[[], Any]) -> Callable[[], Any]:
    """Return a call that waits until the device is done."""
    if DEVICE.type == "cpu":
        return call

    def finished() -> Any:
        result = call()
        torch.cuda.synchronize(DEVICE)
        return result

    return finished
