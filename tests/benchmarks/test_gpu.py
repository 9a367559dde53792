"""`make gpu` without a GPU: it refuses, and rehearsed on a CPU it loses nothing to steps that end their process."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from zellige.benchmarks.generate.subjects import REFERENCES
from zellige.benchmarks.gpu.__main__ import main
from zellige.benchmarks.gpu.journal import Journal, read_steps
from zellige.benchmarks.gpu.parts import STEPS
from zellige.benchmarks.gpu.supervisor import Options
from zellige.benchmarks.gpu.tables import closing_table
from zellige.benchmarks.kernels.cases import KERNELS, Case

ROOT = Path(__file__).parents[2]
DEATHS = """
import os, threading

def test_first(): pass
def test_that_ends_the_process(): os.abort()
def test_that_never_ends(): threading.Event().wait()
def test_that_fails(): assert 1 + 1 == 3
def test_last(): pass
"""


def rehearse(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zellige.benchmarks.gpu", "--device", "cpu", "--out", str(out), *arguments]
    return subprocess.run(command, cwd=out.parent, capture_output=True, text=True, check=False)


def states(out: Path, part: str = "tests") -> dict[str, str]:
    report = json.loads((out / f"{part}.json").read_text())
    return {step["step"].split("::")[-1]: step["state"] for step in report["steps"]}


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options("cpu", ("affine_relu",), ("float32",), (), (), str(tmp_path))


@pytest.fixture
def smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kernel at its smallest shape only, few calls, in a heap that gives memory back."""

    def smallest_of(make: Callable[..., Iterator[Case]]) -> Callable[..., Iterator[Case]]:
        return lambda dtype, device: iter([min(make(dtype, device), key=lambda case: case.least_bytes)])

    for name, make in list(KERNELS.items()):
        monkeypatch.setitem(KERNELS, name, smallest_of(make))
    monkeypatch.setattr("zellige.benchmarks.kernels.compare.keep_freed_memory", lambda: None)
    monkeypatch.setattr("zellige.benchmarks.kernels.measure.cache_bytes", lambda device: 2**20)
    monkeypatch.setattr("zellige.benchmarks.kernels.measure._ROUNDS", 2)
    monkeypatch.setattr("zellige.benchmarks.gpu.parts._RUNNER_SECONDS", 0.0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_so_in_one_sentence(tmp_path, capsys):
    assert main(["--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert said.err == (
        "zellige: this machine has no CUDA device that torch can use, and `make gpu` is for those only.\n"
    )
    assert not said.out and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ("tests,magic", "there is no part 'magic'; choose from conditions, tests, compile, tune, bench, generate, pan"),
        (",", "no part is chosen; choose from conditions, "),
    ],
)
def test_unknown_parts_are_refused(parts, sentence, capsys):
    assert main(["--parts", parts]) == 2
    assert sentence in capsys.readouterr().err


def test_make_runs_from_the_checkout_and_names_the_packages_that_are_missing(tmp_path):
    # Without its installed packages this Python finds zellige through the checkout or not at all.
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MAKEFLAGS")}
    command = ["make", "-C", str(ROOT), "gpu", f"PYTHON={sys.executable} -S", "PARTS=bench", f"OUT={tmp_path}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "zellige: this Python lacks numpy, PIL, pydantic, rich, safetensors, torch, typer, triton; " in done.stderr


def test_conditions_and_tests_are_written_and_a_table_comes_last(tmp_path):
    chosen = f"-m 'not gpu' -k 'other_devices' {ROOT}/tests/engine/test_device.py"
    done = rehearse(tmp_path / "out", "--parts", "tests,conditions", "--processes", "1", "--select", chosen)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["conditions.json", "log.txt", "tests.json"]
    assert set(states(tmp_path / "out").values()) == {"passed"} and len(states(tmp_path / "out")) == 7
    machine, source = json.loads((tmp_path / "out/conditions.json").read_text())["steps"][:2]
    assert machine["result"]["packages"]["torch"] == torch.__version__
    assert machine["result"]["command"].startswith("python -m zellige.benchmarks.gpu --device cpu --out ")
    assert len(source["result"]["sha256"]) == 64
    table = done.stdout.splitlines()[-4:]
    assert table[0].startswith("conditions ok") and table[-1].startswith("tests      ok")
    assert table[-1].endswith("7 passed")


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_test_that_dies_or_hangs_costs_no_other(processes, tmp_path):
    (tmp_path / "test_deaths.py").write_text(DEATHS)
    chosen = ["--select", str(tmp_path / "test_deaths.py"), "--step-limit", "3", "--processes", processes]
    done = rehearse(tmp_path / "out", "--parts", "tests", *chosen)
    assert done.returncode == 1
    assert states(tmp_path / "out") == {
        "test_first": "passed", "test_that_ends_the_process": "failed", "test_that_never_ends": "failed",
        "test_that_fails": "failed", "test_last": "passed",
    }  # fmt: skip
    for sentence in ("was ended by SIGABRT", "no end within the limit of a step", "assert (1 + 1) == 3"):
        assert sentence in done.stdout


def test_a_spoiled_process_is_replaced(tmp_path):
    # What the journal does when CUDA is unusable after a test.
    (tmp_path / "conftest.py").write_text("""
import os, pytest

@pytest.hookimpl(trylast=True)
def pytest_runtest_logfinish(nodeid): os._exit(3)
""")
    (tmp_path / "test_three.py").write_text("def test_a(): pass\ndef test_b(): assert False\ndef test_c(): pass\n")
    done = rehearse(tmp_path / "out", "--parts", "tests", "--select", str(tmp_path), "--processes", "1")
    assert states(tmp_path / "out") == {"test_a": "passed", "test_b": "failed", "test_c": "passed"}, done.stdout


def test_what_is_too_late_is_stopped_and_the_next_part_runs(tmp_path):
    (tmp_path / "test_late.py").write_text(
        "import threading\ndef test_first(): pass\ndef test_never_ends(): threading.Event().wait()\n"
    )
    chosen = ["--select", str(tmp_path / "test_late.py"), "--processes", "1", "--limit", "6"]
    done = rehearse(tmp_path / "out", "--parts", "tests,profile", *chosen)
    assert done.returncode == 1
    assert states(tmp_path / "out") == {"test_first": "passed", "test_never_ends": "stopped"}
    assert json.loads((tmp_path / "out/profile.json").read_text())["stopped"] in (True, False)
    assert "tests      late" in done.stdout


def test_files_that_cannot_be_imported_and_no_test_at_all_are_failures(tmp_path):
    (tmp_path / "test_broken.py").write_text("import nothing_of_this_name\n")
    (tmp_path / "test_empty.py").write_text("")
    done = rehearse(tmp_path / "out", "--parts", "tests", "--select", str(tmp_path / "test_broken.py"))
    assert done.returncode == 1 and "nothing_of_this_name" in done.stdout
    done = rehearse(tmp_path / "out", "--parts", "tests", "--select", str(tmp_path / "test_empty.py"))
    assert done.returncode == 1 and "nothing ran" in done.stdout


def test_a_journal_goes_on_behind_what_has_ended(tmp_path):
    calls: list[str] = []
    for _ in range(2):
        journal = Journal(tmp_path / "journal", 60)
        journal.run("right", lambda: calls.append("right") or {"answer": 42})
        journal.run("wrong", lambda: calls.append("wrong") or {"answer": 1 // 0})
    assert calls == ["right", "wrong"]
    right, wrong = read_steps(tmp_path / "journal")
    assert right["state"] == "passed" and right["result"] == {"answer": 42}
    assert wrong["state"] == "failed" and wrong["error"] == "ZeroDivisionError: integer division or modulo by zero"


@pytest.mark.usefixtures("smallest")
def test_compiling_tuning_profile_and_benchmark_work_on_the_cases_of_the_benchmark(options, tmp_path):
    results = {}
    for part in ("compile", "tune", "bench"):
        ((step, call),) = STEPS[part](options)
        results[part] = call()
    assert results["compile"] == {"skipped": {}}
    assert results["tune"] == {"configurations": []}  # nothing to tune on a CPU
    rows: list[dict[str, Any]] = results["bench"]["results"]
    assert [row["pass"] for row in rows] == ["forward", "forward+backward"]
    assert {row["command"] for row in rows} == {
        "zellige bench kernels affine_relu --dtype float32 --device cpu --against ''"
    }
    assert not list(STEPS["profile"](options))
    for row in rows:
        row["percent_of_limit"] = 10.0
    report = {"part": "bench", "steps": [{"step": step, "result": {"results": rows}}]}
    (tmp_path / "bench.json").write_text(json.dumps(report))
    ((_, call),) = STEPS["profile"](options)
    assert any("affine_relu" in row["name"] for row in call()["functions"])


def test_the_device_may_be_twice_as_wrong_as_the_cpu(options):
    result = dict(STEPS["panorama"](options))["planet against the CPU"]()
    assert result["error"] == result["error_of_bf16_on_the_cpu"] > 0


def test_generators_are_measured_one_at_a_time(options, monkeypatch):
    report = {"results": [{"runner": "zellige", "p50_ms": 2.0, "reason": None}],
              "speedup_same_precision": {"fp32": {"8": 1.25}}}  # fmt: skip
    asked = []

    def compare(*given: Any) -> Iterator[dict[str, Any]]:
        asked.append(given[:3])
        return iter([report])

    monkeypatch.setattr("zellige.benchmarks.gpu.parts.generation.compare", compare)
    steps = dict(STEPS["generate"](options))
    assert {"onegan-128 fp32 batch 1", "onegan-128 fp32 batch 8"} < steps.keys() and len(steps) == 3 * len(REFERENCES)
    assert steps["onegan-128 fp32 batch 8"]() == report and asked == [("onegan-128", [8], ["fp32"])]
    steps = [{"step": "onegan-128 fp32 batch 8", "state": "passed", "result": report}]
    done = {"part": "generate", "passed": True, "stopped": False, "seconds": 1.0, "limit_seconds": 9, "steps": steps}
    assert closing_table([done]).splitlines()[1].strip() == "onegan-128 fp32 batch 8: 2.00 ms, 1.25 x best peer"


def test_the_table_gives_the_worst_and_the_best_of_the_limit_and_to_the_best_peer():
    common = {"kernel": "glu_layer_norm", "dtype": "bfloat16"}
    steps = [
        {"step": f"glu_layer_norm {shape} bfloat16", "state": "passed", "result": {"results": [
            common | {"pass": stage, "shape": shape, "runner": runner, "ratio": ratio, "percent_of_limit": share}
            for stage, runner, ratio, share in rows
        ]}}
        for shape, rows in {
            "a": [("forward", "zellige", 1.0, 80.0), ("forward", "eager", 3.0, 27.0), ("forward", "compile", 1.5, 53.0),
                  ("forward+backward", "zellige", 1.0, 70.0), ("forward+backward", "eager", 2.0, 35.0)],
            "b": [("forward", "zellige", 1.0, 60.0), ("forward", "eager", 0.9, 67.0), ("forward", "compile", 4.0, 15.0),
                  ("forward+backward", "zellige", 1.0, 60.0), ("forward+backward", "eager", 1.0, 60.0)],
        }.items()
    ]  # fmt: skip
    report = {"part": "bench", "passed": True, "stopped": False, "seconds": 1.0, "limit_seconds": 9, "steps": steps}
    assert closing_table([report]).splitlines() == [
        "bench      ok        1.0 s  2 passed",
        "           glu_layer_norm bfloat16: forward 60 to 80 % of limit, 0.90 to 1.50 x best peer; "
        "forward+backward 60 to 70 % of limit, 1.00 to 2.00 x best peer",
    ]
