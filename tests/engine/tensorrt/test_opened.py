"""Engines from files of both kinds: those of ONNX models are really built, and loaded by a stand-in."""

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from zellige.engine.tensorrt.opened import open_engine
from zellige.errors import CheckpointError, DeviceError

from ...export.graphs import BFLOAT16, convolution, relu
from .stand_in_cuda import devices
from .stand_in_tensorrt import EngineOfTensorRT, Machine, Mode, engine_file, machine

__all__ = ["machine"]

tensorrt_rtx = pytest.importorskip("tensorrt_rtx")


@pytest.fixture
def loaded(machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[bytes]:
    """Engines in the order in which they were loaded; TensorRT-RTX builds truly, and loads as the stand-in does."""
    found: list[bytes] = []

    class Runtime:
        def __init__(self, log: Any) -> None:
            pass

        def deserialize_cuda_engine(self, content: bytes) -> Any:
            found.append(content)
            return EngineOfTensorRT(engine_file((1, 8, 32)), machine.cuda, None)

    library = vars(tensorrt_rtx) | {"Runtime": Runtime, "TensorIOMode": Mode}
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", SimpleNamespace(**library))
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setenv("ZELLIGE_CACHE", str(tmp_path / "cache"))
    return found


def facts(folder: Path) -> list[dict[str, Any]]:
    files = sorted((folder / "cache" / "engines").iterdir())
    return [json.loads(file.read_bytes().split(b"\n")[0])["key"] for file in files]


def test_an_engines_file_is_run(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "twice.engine"
    path.write_bytes(engine_file((1, 8, 32)))
    given = {"c": np.ones(3, np.int64), "x": np.ones((3, 3), np.float32)}
    for model in (path, path.read_bytes()):
        assert (open_engine(model, (1,)).run(given)["y"] == 2).all()


def test_an_onnx_model_is_built_once_for_the_device_and_each_bucket(loaded: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(relu())
    for model in (tmp_path / "model.onnx", relu()):
        open_engine(model, (1, 8))
    assert loaded[0] == loaded[1] and loaded[0].startswith(b"vtrt")
    (key,) = facts(tmp_path)
    assert (key["profiles"], key["targets"], key["flavour"]) == ([[1, 1, 1], [8, 8, 8]], ["sm_86"], "rtx")
    assert key["versions"]["tensorrt_rtx"] == tensorrt_rtx.__version__


def test_another_model_and_other_buckets_are_other_engines(loaded: list[bytes], tmp_path: Path) -> None:
    open_engine(relu(), (1, 8))
    open_engine(relu(), (4,))
    open_engine(convolution(BFLOAT16), (4,))
    assert len(facts(tmp_path)) == 3


def test_a_device_that_the_flavour_does_not_build_for_is_refused(
    loaded: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    devices(monkeypatch, ("A large card", 9, 0))
    with pytest.raises(DeviceError, match="^TensorRT-RTX does not build for sm_90; .* take the flavour 'full' there$"):
        open_engine(relu(), (1,))


def test_a_file_that_is_not_there_is_refused(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "missing"
    sentence = f"{path} cannot be read: No such file or directory; give the path of an engine or of an ONNX model"
    with pytest.raises(CheckpointError, match=f"^{re.escape(sentence)}$"):
        open_engine(path, (1,))


def test_what_is_neither_is_refused(loaded: list[bytes]) -> None:
    with pytest.raises(
        CheckpointError, match="^the ONNX model cannot be opened as an ONNX model: byte 0 begins no field"
    ):
        open_engine(b"neither", (1,))


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["a pipe", "a folder"])
def test_what_is_no_file_is_refused_and_not_waited_for(
    loaded: list[bytes], make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / "a.onnx")
    with pytest.raises(CheckpointError, match=r"a.onnx cannot be read: it is a (pipe|folder) and not a regular file"):
        open_engine(tmp_path / "a.onnx", (1,))


def test_without_a_device_nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    devices(monkeypatch)
    with pytest.raises(DeviceError, match="^TensorRT engines run on CUDA devices, and there is none here; use"):
        open_engine(relu(), (1,))
