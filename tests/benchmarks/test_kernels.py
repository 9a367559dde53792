"""The kernel benchmark: right first, every runner on the same inputs, every row repeatable."""

import dataclasses
import json
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from zellige.benchmarks.kernels import cases as all_cases
from zellige.benchmarks.kernels import compare as comparing
from zellige.benchmarks.kernels.cases import KERNELS, Case, cases
from zellige.benchmarks.kernels.compare import PASSES, inputs_of, runners_of
from zellige.benchmarks.kernels.exported import Unmeasured, exported, onnxruntime_calls, openvino_calls
from zellige.benchmarks.kernels.measure import alternate
from zellige.benchmarks.kernels.plot import plot
from zellige.benchmarks.kernels.runners import Inputs
from zellige.benchmarks.kernels.table import table_of
from zellige.cli import make_app
from zellige.errors import TaskError

CPU = torch.device("cpu")
DTYPES = [torch.float32, torch.bfloat16]

_OF_PRODUCTS = ("rearrange", "nearest_centroid", "winograd_conv")  # whose limit may be the matrix rate

# Every key of a row, and what it may hold.
ROW = {
    "kernel": str, "shape": str, "dtype": str, "device": str, "pass": str, "runner": str, "form": str,
    "command": str, "calls": int, "error": float, "seconds": float, "seconds_p10": float, "seconds_p90": float,
    "ratio": float, "gigabytes_per_second": float, "percent_of_copy": float,
    "percent_of_matrix_rate": (float, type(None)), "percent_of_limit": float,
}  # fmt: skip


def compare(*arguments: Any) -> dict[str, Any]:
    """The last report, of the fewest calls."""
    *_, report = comparing.compare(*arguments, budget=0.0)
    return report


@pytest.fixture(autouse=True)
def _plain_heap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The heap of this process serves tests of memory too, which count what is given back."""
    monkeypatch.setattr("zellige.benchmarks.kernels.compare.keep_freed_memory", lambda: None)


@pytest.fixture
def smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kernel at its smallest shape only, with few sets of inputs and few calls."""

    def smallest_of(make: Callable[..., Iterator[Case]]) -> Callable[..., Iterator[Case]]:
        return lambda dtype, device: iter([min(make(dtype, device), key=lambda case: case.least_bytes)])

    for name, make in list(KERNELS.items()):
        monkeypatch.setitem(KERNELS, name, smallest_of(make))
    monkeypatch.setattr("zellige.benchmarks.kernels.measure.cache_bytes", lambda device: 2**20)
    monkeypatch.setattr("zellige.benchmarks.kernels.measure._ROUNDS", 2)


@pytest.fixture
def report() -> dict[str, Any]:
    """What a run gives, with invented figures."""
    common = {"kernel": "affine_relu", "dtype": "float32", "device": "cpu", "pass": "forward", "form": "", "calls": 7}
    figures = {
        "error": 0.0, "seconds": 1e-3, "seconds_p10": 9e-4, "seconds_p90": 2e-3, "ratio": 1.0,
        "gigabytes_per_second": 12.5, "percent_of_copy": 71.0, "percent_of_matrix_rate": None,
        "percent_of_limit": 71.0, "command": "zellige bench kernels",
    }  # fmt: skip
    rows = [common | figures | {"shape": shape, "runner": name} for shape in "ab" for name in ("zellige", "eager")]
    skipped = [common | {"shape": "a", "runner": "openvino", "reason": "openvino is not installed"}]
    machine = {"gpu": None, "processor": "any", "threads": 2, "date": "2026-01-01", "versions": {"torch": "2"}}
    return {"results": rows, "skipped": skipped, "cache_bytes": 1, "conditions": machine}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernel_and_eager_agree_at_every_small_shape(kernel, dtype):
    for case in cases(kernel, dtype, CPU):
        if case.least_bytes > 2**23:
            continue
        right, skipped = runners_of(case, Inputs([case.inputs()]), ["eager"])
        assert {"zellige", "eager"} <= right.keys() and not skipped


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_of_maps_has_large_ones_in_both_memory_orders(kernel):
    found = list(cases(kernel, torch.bfloat16, CPU))
    assert len({case.shape for case in found}) == len(found)
    if kernel in ("nearest_centroid", "rearrange", "feather_blend", "wave_field"):
        return  # they take no maps
    for by_pixel in (False, True):
        assert max(case.least_bytes for case in found if case.by_pixel == by_pixel) >= 2**24


@pytest.mark.usefixtures("smallest")
@pytest.mark.parametrize("kernel", KERNELS)
def test_every_row_is_complete_and_repeatable_and_a_share_of_a_limit(kernel):
    report = compare([kernel], [torch.float32], CPU, ["eager"])
    rows = report["results"]
    assert {"zellige", "eager"} <= {row["runner"] for row in rows}
    (case,) = KERNELS[kernel](torch.float32, CPU)
    assert {row["pass"] for row in rows} == set(PASSES if case.training_bytes else PASSES[:1])
    for row in rows:
        assert row.keys() == ROW.keys()
        assert all(isinstance(row[key], kind) for key, kind in ROW.items())
        assert row["command"] == f"zellige bench kernels {kernel} --dtype float32 --device cpu --against eager"
        assert 0 < row["seconds_p10"] <= row["seconds"] <= row["seconds_p90"] and math.isfinite(row["ratio"])
        assert (row["percent_of_matrix_rate"] is not None) == (kernel in _OF_PRODUCTS)
        assert row["percent_of_limit"] == max(row["percent_of_copy"], row["percent_of_matrix_rate"] or 0.0)
        assert row["calls"] == 2  # one a round
    assert {"processor", "versions", "command"} <= report["conditions"].keys()
    json.dumps(report)


def test_a_kernel_for_cpus_is_refused_elsewhere():
    with pytest.raises(TaskError, match=r"^winograd_conv is not measured on cuda; choose --device cpu\.$"):
        compare(["winograd_conv"], [torch.float32], torch.device("cuda"), [])


@pytest.mark.usefixtures("smallest")
def test_no_time_is_given_for_a_wrong_result(monkeypatch):
    (case,) = KERNELS["affine_relu"](torch.float32, CPU)
    wrong = dataclasses.replace(case, kernel_call=lambda *t: case.kernel_call(*t) + 1e-3)
    monkeypatch.setitem(all_cases.KERNELS, "affine_relu", lambda dtype, device: iter([wrong]))
    with pytest.raises(TaskError, match="differs from plain PyTorch by"):
        compare(["affine_relu"], [torch.float32], CPU, [])


@pytest.mark.usefixtures("smallest")
def test_no_time_is_given_for_a_wrong_gradient():
    (case,) = KERNELS["mask_composite"](torch.float32, CPU)
    wrong = dataclasses.replace(case, kernel_call=lambda f, b, m: case.kernel_call(f.detach(), b, m) + f - f.detach())
    inputs = inputs_of(wrong, "forward+backward", CPU)
    with pytest.raises(TaskError, match="differs from plain PyTorch by"):
        runners_of(wrong, inputs, [])


@pytest.mark.usefixtures("smallest")
def test_a_peer_that_is_wrong_or_fails_is_named_with_the_reason():
    (case,) = KERNELS["mask_composite"](torch.float32, CPU)

    def failing(*_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such kernel\nand more")

    peers = {"sdpa-wrong": lambda f, b, m: f, "sdpa-failing": failing}
    right, skipped = runners_of(dataclasses.replace(case, peers=peers), Inputs([case.inputs()]), ["sdpa"])
    assert right.keys() == {"zellige"}
    assert skipped["sdpa-wrong"].startswith("sdpa-wrong: differs from plain PyTorch by")
    assert skipped["sdpa-failing"] == "sdpa-failing: no such kernel"


@pytest.mark.parametrize(("package", "calls_of"), [("onnxruntime", onnxruntime_calls), ("openvino", openvino_calls)])
def test_a_package_that_is_missing_is_named(package, calls_of, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Unmeasured, match=f"^{package} is not installed$"):
        calls_of(b"", [(torch.ones(1),)], torch.ones(1))


@lru_cache(maxsize=1)  # both runtimes come one after the other, and inputs are large
def small_graph(kernel: str) -> tuple[Case, bytes, list[tuple[Any, ...]]]:
    """The smallest case by plane, its graph and two sets of inputs, for both runtimes."""
    found = (case for case in cases(kernel, torch.float32, CPU) if not case.by_pixel)
    case = min(found, key=lambda case: case.least_bytes)
    sets = [case.inputs() for _ in range(2)]
    return case, exported(case.graph or case.eager, sets[0]), sets


@pytest.mark.parametrize(("package", "calls_of"), [("onnxruntime", onnxruntime_calls), ("openvino", openvino_calls)])
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_exported_graph_equals_eager_on_every_set(kernel, package, calls_of):
    pytest.importorskip("onnx")
    pytest.importorskip(package)
    case, graph, sets = small_graph(kernel)
    wanted = [case.eager(*inputs) for inputs in sets]
    result = torch.empty_like(wanted[0], memory_format=torch.contiguous_format)
    for inputs, call, right in zip(sets, calls_of(graph, sets, result), wanted, strict=True):
        actual, right = ((case.seen(t, *inputs) if case.seen else t) for t in (call(), right))
        assert (actual - right).abs().max() <= 10 * case.tolerance * right.abs().max()


def test_other_runtimes_are_not_measured_on_maps_by_pixel():
    case = next(case for case in cases("affine_relu", torch.float32, CPU) if case.by_pixel)
    _, skipped = runners_of(case, Inputs([case.inputs()]), ["onnxruntime", "openvino"])
    assert skipped == {name: f"{name} takes maps by plane only" for name in ("onnxruntime", "openvino")}


@pytest.mark.slow
def test_the_compiler_is_measured_in_both_passes():
    case = min(cases("mask_composite", torch.float32, CPU), key=lambda case: case.least_bytes)
    for stage in PASSES:
        with torch.no_grad():
            right, skipped = runners_of(case, inputs_of(case, stage, CPU), ["compile"])
        assert right.keys() == {"zellige", "compile"} and not skipped
        assert right["compile"][0].form == "default"


def test_runners_alternate_and_inputs_take_turns():
    seen: list[tuple[str, int]] = []
    runners = {name: [partial(seen.append, (name, k)) for k in range(3)] for name in ("a", "b")}
    times = alternate(runners, CPU, budget=0.0)
    assert {place for name, place in seen if name == "a"} == {0, 1, 2}
    order = "".join(name for name, _ in seen)
    assert order.endswith("aabb" * 7)  # one call to wake up and one that counts
    assert times["a"].calls == times["b"].calls == 7
    assert 0 <= times["a"].low <= times["a"].median <= times["a"].high


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="this system does not tell what threads do")
def test_a_turn_waits_until_other_threads_sleep():
    end = time.perf_counter() + 0.05

    def spin() -> None:
        while time.perf_counter() < end:
            pass

    thread = threading.Thread(target=spin)
    alive: list[bool] = []
    thread.start()
    alternate({"a": [lambda: alive.append(thread.is_alive())]}, CPU, budget=0.0)
    assert not any(alive[4:])  # four calls come before the first turn


def test_the_table_names_what_is_missing(report, capsys):
    Console(width=170).print(table_of(report))
    printed = capsys.readouterr().out
    assert "71 %" in printed and "openvino is not installed (a float32)" in printed


def test_the_plot_is_a_png(report, tmp_path: Path):
    pytest.importorskip("matplotlib")
    plot(report, tmp_path / "limit.png")
    assert (tmp_path / "limit.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.usefixtures("smallest")
def test_a_run_that_is_stopped_keeps_the_shapes_before(monkeypatch, tmp_path: Path):
    (case,) = KERNELS["nearest_centroid"](torch.float32, CPU)

    def stopping(*_: torch.Tensor) -> torch.Tensor:
        raise KeyboardInterrupt

    stopped = dataclasses.replace(case, shape="stopped", kernel_call=stopping)
    monkeypatch.setitem(KERNELS, "nearest_centroid", lambda dtype, device: iter([case, stopped]))
    file = tmp_path / "kernels.json"
    arguments = ["nearest_centroid", "--dtype", "float32", "--against", "", "--device", "cpu", "--save", str(file)]
    result = CliRunner().invoke(make_app(), ["bench", "kernels", *arguments])
    assert result.exit_code == 130
    assert case.shape in result.stdout and "stopped" not in result.stdout
    assert {row["shape"] for row in json.loads(file.read_text())["results"]} == {case.shape}
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["softmax"], "there is no kernel softmax to measure; choose from affine_relu"),
        (["affine_relu", "--against", "magic"], "there is no peer magic to measure; choose from eager, compile,"),
        (["affine_relu", "--dtype", "int8"], "kernels are not measured in int8; choose from float32"),
    ],
)
def test_unknown_names_are_refused(arguments, sentence):
    result = CliRunner().invoke(make_app(), ["bench", "kernels", *arguments])
    assert isinstance(result.exception, TaskError)
    assert sentence in str(result.exception)
