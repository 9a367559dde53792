"""What follows from the order of calls is tested by stand-ins for CuPy and TensorRT; the rest needs a GPU."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zellige.engine.tensorrt.engine import Engine
from zellige.errors import BudgetError, CheckpointError, DeviceError, MissingExtraError, ShapeError, SizeError

from .stand_in_cuda import Array, devices
from .stand_in_tensorrt import SCRATCH, Machine, engine_file, machine

__all__ = ["machine"]

ONE = engine_file((1, 8, 32))


def rows(count: int, seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {"c": random.integers(5, size=count), "x": random.standard_normal((count, 3)).astype(np.float32)}


def expected(given: dict[str, Any]) -> Any:
    return (given["c"][:, None] + 1).astype(np.float32) * given["x"]


@pytest.mark.parametrize("host", [True, False])
@pytest.mark.parametrize("on_device", [True, False])
def test_every_row_is_run_whatever_their_number(host: bool, on_device: bool, machine: Machine) -> None:
    engine = Engine(ONE, (1, 4, 8))
    for seed, count in enumerate((1, 3, 8, 23, 2, 0)):
        given = rows(count, seed)
        placed = {name: values.view(Array) if on_device else values for name, values in given.items()}
        (found,) = engine.run(placed, host=host).values()
        assert isinstance(found, Array) != host and np.array_equal(found, expected(given))


def test_a_smaller_batch_is_padded_with_its_last_row(machine: Machine) -> None:
    engine = Engine(ONE, (1, 4, 8))
    engine.run({"c": np.array([7, 8, 9]), "x": np.zeros((3, 3), np.float32)})
    assert machine.engines[0].batches[-1] == (0, 4, [7, 8, 9, 9])


def test_batches_are_of_the_buckets_alone(machine: Machine) -> None:
    engine = Engine(ONE, (1, 4, 8))
    engine.warm([1, 4, 8])
    machine.engines[0].batches.clear()
    engine.run(rows(8 + 8 + 3))
    assert [size for _, size, _ in machine.engines[0].batches] == [8, 8, 4]


def test_a_bucket_is_captured_once_and_launched_from_then_on(machine: Machine) -> None:
    engine = Engine(ONE, (1, 4, 8))
    for count in (1, 12, 1, 12):
        engine.run(rows(count))
    assert (engine.graphs, machine.cuda.launches, len(machine.engines[0].settings)) == ([1, 8, 4], 6, 3)


def test_warm_captures_what_such_batches_need(machine: Machine) -> None:
    engine = Engine(ONE, (1, 4, 8))
    engine.warm([12, 1])
    assert engine.graphs == [8, 4, 1] and machine.cuda.launches == 0
    engine.run(rows(13))
    assert engine.graphs == [8, 4, 1]


@pytest.mark.parametrize(
    ("profiles", "chosen"),
    [
        ([(1, 1, 1), (2, 8, 32)], {1: 0, 2: 1, 8: 1, 32: 1}),
        ([(1, 32, 32), (1, 1, 32)], {1: 1, 2: 1, 8: 1, 32: 0}),
        ([(1, 4, 8), (4, 32, 64)], {1: 0, 2: 0, 8: 0, 32: 1}),
        ([(1, 8, 32), (1, 8, 32)], {1: 0, 2: 0, 8: 0, 32: 0}),
    ],
)
def test_a_batch_takes_the_profile_that_holds_it_with_the_nearest_usual_batch(
    profiles: list[tuple[int, int, int]], chosen: dict[int, int], machine: Machine
) -> None:
    engine = Engine(engine_file(*profiles), tuple(chosen))
    for size in chosen:
        engine.run(rows(size))
    assert {size: profile for profile, size, _ in machine.engines[0].batches} == chosen


@pytest.mark.parametrize(
    ("profiles", "buckets", "kept"),
    [
        ([(2, 8, 16)], (1, 8, 32), (8,)), ([(2, 4, 6), (5, 6, 7)], (1, 8, 32), (4, 6)),
        ([(1, 8, 32)], (32, 1, 8, 8), (1, 8, 32)),
    ],
)  # fmt: skip
def test_buckets_that_no_profile_holds_are_left_out(
    profiles: list[tuple[int, int, int]], buckets: tuple[int, ...], kept: tuple[int, ...], machine: Machine
) -> None:
    engine = Engine(engine_file(*profiles), buckets)
    assert engine.buckets == kept
    given = rows(11)
    assert np.array_equal(engine.run(given)["y"], expected(given))


def test_an_engine_that_cannot_be_captured_is_run_directly(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine(ONE, (1, 4))
    machine.engines[0].uncapturable = True
    for seed in range(2):
        given = rows(5, seed)
        assert np.array_equal(engine.run(given)["y"], expected(given))
    assert (engine.graphs, machine.cuda.launches, len(caplog.messages)) == ([], 0, 1)
    assert "operation not permitted when stream is capturing" in engine.eager
    assert caplog.messages[0].startswith("the engine is run without CUDA graphs, which takes longer: ")


def test_the_callers_stream_and_the_engines_wait_for_each_other(machine: Machine) -> None:
    Engine(ONE, (4,)).run(rows(3), host=False)
    assert machine.cuda.waited == [("engine", "caller"), ("caller", "engine")]


def test_kernels_of_rtx_are_compiled_before_a_graph_is_captured(machine: Machine) -> None:
    for begins in (b"vtrt", b"ftrt"):
        Engine(engine_file((1, 8, 32), begins=begins), (4,)).run(rows(1))
    rtx, full = (engine.settings[0] for engine in machine.engines)
    assert (rtx.strategy, rtx.dynamic_shapes_kernel_specialization_strategy) == ("managed", "eager")
    assert full == "managed"


class TestMemory:
    NEEDED = SCRATCH + 4 * (8 + 12 + 12)  # of contexts, and of c, x and y for four rows

    def test_buffers_and_contexts_are_within_the_limit(self, machine: Machine) -> None:
        engine = Engine(ONE, (1, 4), memory=self.NEEDED)
        for count in (4, 1, 9):
            given = rows(count, count)
            assert np.array_equal(engine.run(given)["y"], expected(given))
        assert machine.cuda.pools[0].used == self.NEEDED

    def test_results_that_stay_on_the_device_are_within_it_too(self, machine: Machine) -> None:
        engine = Engine(ONE, (1, 4), memory=self.NEEDED + 48)
        kept = engine.run(rows(4), host=False)
        with pytest.raises(BudgetError):
            engine.run(rows(4), host=False)
        del kept
        assert len(engine.run(rows(4), host=False)["y"]) == 4

    def test_less_is_refused_and_nothing_is_held(self, machine: Machine) -> None:
        engine = Engine(ONE, (1, 4), memory=self.NEEDED - 1)
        limit = f"the limit of {self.NEEDED - 1} bytes"
        sentence = f"batches of 4 images need more memory than {limit}; give more, or smaller buckets"
        with pytest.raises(BudgetError, match=f"^{re.escape(sentence)}$"):
            engine.run(rows(1))
        assert machine.cuda.pools[0].used == 0

    def test_nothing_is_allocated_after_the_first_batch(self, machine: Machine) -> None:
        engine = Engine(ONE, (1, 4))
        used = set()
        for count in (1, 4, 30):
            engine.run(rows(count))
            used.add(machine.cuda.pools[0].used)
        assert len(used) == 1


class TestRefused:
    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ({"c": np.zeros(2, np.int32)}, "the input 'c' must be int64 [N]; got int32 [2]"),
            ({"x": np.zeros((2, 3))}, "the input 'x' must be float32 [N, 3]; got float64 [2, 3]"),
            ({"x": np.zeros((2, 4), np.float32)}, "the input 'x' must be float32 [N, 3]; got float32 [2, 4]"),
            ({"c": np.zeros(3, np.int64)}, "all inputs must have the same number of rows; got c [3], x [2, 3]"),
            ({"c": np.zeros((), np.int64)}, "the input 'c' must be int64 [N]; got int64 []"),
            ({"z": np.zeros(2)}, "the engine takes the inputs c, x; got c, x, z"),
        ],
    )
    def test_inputs_that_the_engine_does_not_take(self, change: Any, sentence: str, machine: Machine) -> None:
        with pytest.raises(ShapeError, match=f"^{re.escape(sentence)}$"):
            Engine(ONE, (1,)).run(rows(2) | change)

    def test_what_is_no_engine(self, machine: Machine) -> None:
        with pytest.raises(CheckpointError, match=r"^this is no TensorRT engine; build one with: zellige export MODEL"):
            Engine(b"\x08\x0a no engine", (1,))

    def test_an_engine_of_another_version(self, machine: Machine) -> None:
        sentence = (
            "TensorRT-RTX 0.0 cannot load this engine on A card: Version tag does not match; build it with this "
            "version, for this device"
        )
        with pytest.raises(CheckpointError, match=f"^{re.escape(sentence)}$"):
            Engine(ONE[:-1], (1,))

    def test_an_engine_of_types_that_numpy_has_not(self, machine: Machine) -> None:
        with pytest.raises(CheckpointError, match=r"^this engine has 'x' as bfloat16 \[-1, 3\]; all must be"):
            Engine(engine_file((1, 8, 32), x=("BF16", (3,))), (1,))

    def test_an_engine_with_other_sides_of_any_size(self, machine: Machine) -> None:
        with pytest.raises(CheckpointError, match=r"^this engine has 'x' as float32 \[-1, -1\]; all must be"):
            Engine(engine_file((1, 8, 32), x=("FLOAT", (-1,))), (1,))

    def test_buckets_below_one(self, machine: Machine) -> None:
        with pytest.raises(
            SizeError, match=r"^batches of \[0, 4\] images cannot be run; give one size or more, each 1"
        ):
            Engine(ONE, (0, 4))

    def test_a_device_that_is_not_there(self, machine: Machine) -> None:
        with pytest.raises(DeviceError, match="^there is no CUDA device 1; the last one here is 0$"):
            Engine(ONE, (1,), device=1)

    def test_any_engine_where_there_is_no_device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        devices(monkeypatch)
        sentence = "TensorRT engines run on CUDA devices, and there is none here; use the runtime 'torch' or 'onnx'"
        with pytest.raises(DeviceError, match=f"^{sentence}$"):
            Engine(ONE, (1,))

    @pytest.mark.parametrize(
        ("begins", "package", "extra"),
        [
            (b"vtrt", "cupy", "tensorrt-rtx"),
            (b"vtrt", "tensorrt_rtx", "tensorrt-rtx"),
            (b"ftrt", "tensorrt", "tensorrt"),
        ],
    )
    def test_where_a_package_is_missing(
        self, begins: bytes, package: str, extra: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(
            MissingExtraError, match=rf"'{package}'; install it with: pip install 'zellige\[{extra}\]'$"
        ):
            Engine(engine_file((1, 8, 32), begins=begins), (1,))


def test_nothing_here_imports_torch_or_triton() -> None:
    names = sorted(path.stem for path in Path(sys.modules[Engine.__module__].__file__ or "").parent.glob("*.py"))
    assert {"engine", "cache", "opened"} <= set(names)
    modules = [f"zellige.engine.tensorrt.{name}" for name in names if name != "__init__"]
    code = (
        "import sys, importlib; sys.modules['torch'] = sys.modules['triton'] = None\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
