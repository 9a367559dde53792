"""The kernel benchmark: right first, every runner on the same inputs, every row repeatable."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator

import pytest
import torch
from typer.testing import CliRunner

from zellige.benchmarks.kernels import cases as all_cases
from zellige.benchmarks.kernels.cases import KERNELS, Case, cases
from zellige.benchmarks.kernels.compare import compare
from zellige.benchmarks.kernels.measure import seconds_of
from zellige.engine.cli import app
from zellige.errors import TaskError

CPU = torch.device("cpu")
DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(autouse=True)
def _plain_heap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The heap of this process serves tests of memory too, which count what is given back."""
    monkeypatch.setattr("zellige.benchmarks.kernels.compare.keep_freed_memory", lambda: None)


@pytest.fixture
def smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kernel at its smallest shape only."""

    def smallest_of(make: Callable[..., Iterator[Case]]) -> Callable[..., Iterator[Case]]:
        return lambda dtype, device: iter([min(make(dtype, device), key=lambda case: case.least_bytes)])

    for name, make in list(KERNELS.items()):
        monkeypatch.setitem(KERNELS, name, smallest_of(make))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernel_and_eager_agree_at_every_small_shape(kernel, dtype):
    for case in cases(kernel, dtype, CPU):
        if case.least_bytes > 2**23:
            continue
        inputs = case.inputs()
        actual, wanted = case.kernel_call(*inputs), case.eager(*inputs)
        scale = wanted.double().abs().max().item()
        assert (actual.double() - wanted.double()).abs().max().item() <= case.tolerance * scale


@pytest.mark.usefixtures("smallest")
@pytest.mark.parametrize("kernel", KERNELS)
def test_every_row_can_be_repeated_and_is_a_share_of_a_limit(kernel):
    report = compare([kernel], [torch.float32], CPU, ["eager"])
    rows = report["results"]
    assert {row["runner"] for row in rows} == {"zellige", "eager"}
    for row in rows:
        assert row["kernel"] == kernel and row["command"].startswith(f"zellige bench kernels {kernel}")
        assert row["seconds"] > 0 and math.isfinite(row["ratio"])
        assert ("percent_of_copy" in row) == (row["pass"] == "forward")
    assert {"processor", "versions", "command"} <= report["conditions"].keys()
    json.dumps(report)


@pytest.mark.usefixtures("smallest")
def test_no_time_is_given_for_a_wrong_result(monkeypatch):
    (case,) = KERNELS["affine_relu"](torch.float32, CPU)
    wrong = dataclasses.replace(case, kernel_call=lambda *t: case.kernel_call(*t) + 1e-3)
    monkeypatch.setitem(all_cases.KERNELS, "affine_relu", lambda dtype, device: iter([wrong]))
    with pytest.raises(TaskError, match="differs from plain PyTorch by"):
        compare(["affine_relu"], [torch.float32], CPU, [])


def test_inputs_take_turns():
    seen: list[int] = []
    seconds_of(seen.append, [(0,), (1,), (2,)], CPU, budget=0.0)
    assert set(seen) == {0, 1, 2}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["softmax"], "there is no kernel softmax to measure; choose from affine_relu"),
        (["affine_relu", "--against", "magic"], "there is no peer magic to measure; choose from eager, compile."),
        (["affine_relu", "--dtype", "int8"], "kernels are not measured in int8; choose from float32"),
    ],
)
def test_unknown_names_are_refused(arguments, sentence):
    result = CliRunner().invoke(app, ["bench", "kernels", *arguments])
    assert isinstance(result.exception, TaskError)
    assert sentence in str(result.exception)
