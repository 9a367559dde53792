import re
from pathlib import Path

import pytest
import torch

from zellige.engine.runtimes import NAMES, open_runtime
from zellige.errors import DeviceError, SizeError

from .networks import Painter

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "network", "sentence"),
    [
        ("tensorrt", b"", "the runtime 'tensorrt' runs on CUDA devices, and not on cpu; use 'torch' or 'onnx'"),
        ("jax", b"", "there is no runtime 'jax'; use 'torch', 'onnx' or 'tensorrt'"),
        ("torch", b"", "the runtime 'torch' runs a network of PyTorch and no ONNX model; use 'onnx' for that"),
        ("torch", Path("x"), "the runtime 'torch' runs a network of PyTorch and no ONNX model; use 'onnx' for that"),
        ("onnx", Painter(), "the runtime 'onnx' runs an ONNX model; give its path or its bytes, or use 'torch'"),
    ],
)
def test_what_cannot_be_run_is_refused_in_a_sentence(name: str, network: object, sentence: str) -> None:
    with pytest.raises(DeviceError, match=f"^{re.escape(sentence)}$"):
        open_runtime(name, network, CPU)  # type: ignore[arg-type]


def test_buckets_below_one_are_refused() -> None:
    with pytest.raises(SizeError, match=r"^batches of \[0, 4\] images cannot be run; give one size or more, each 1"):
        open_runtime("torch", Painter(), CPU, (4, 0))


def test_a_runtime_goes_by_its_name_and_device() -> None:
    runtime = open_runtime("torch", Painter(), CPU)
    assert (runtime.name, runtime.device) == ("torch", CPU) and runtime.name in NAMES
