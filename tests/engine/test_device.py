from pathlib import Path

import pytest
import torch

from zellige.engine.device import available_memory, cpu_has_bf16, pick_device, pick_precision
from zellige.errors import DeviceError

CPU = torch.device("cpu")
without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


@without_cuda
def test_auto_takes_the_cpu_where_there_is_nothing_else() -> None:
    assert pick_device() == pick_device("auto") == pick_device("cpu") == CPU


@pytest.mark.gpu
def test_auto_takes_cuda_where_there_is_one() -> None:
    assert pick_device().type == "cuda"


@pytest.mark.gpu
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(DeviceError, match="there is no device 'cuda:99'; the last one here is cuda:"):
        pick_device("cuda:99")


@without_cuda
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:3"])
def test_a_missing_cuda_device_is_refused_with_what_to_do(name: str) -> None:
    with pytest.raises(DeviceError, match="no CUDA device that torch can use; use --device cpu"):
        pick_device(name)


@pytest.mark.parametrize("name", ["", "gpu", "cuda:x", "-1", "CPU!", "meta", "mps"])
def test_other_devices_are_refused(name: str) -> None:
    with pytest.raises(DeviceError, match=r"use auto, cpu or cuda$"):
        pick_device(name)


@pytest.mark.parametrize(("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_precisions_of_a_cpu(name: str, dtype: torch.dtype) -> None:
    assert pick_precision(name, CPU) is dtype


def test_auto_takes_bf16_only_where_the_cpu_multiplies_in_it() -> None:
    assert pick_precision("auto", CPU) is (torch.bfloat16 if cpu_has_bf16() else torch.float32)


def test_half_precision_is_for_cuda() -> None:
    assert pick_precision("fp16", torch.device("cuda")) is torch.float16
    with pytest.raises(DeviceError, match=r"fp16 is not offered on a CPU.*; use fp32 or bf16"):
        pick_precision("fp16", CPU)


@pytest.mark.parametrize("name", ["", "fp8", "float32", "AUTO"])
def test_other_precisions_are_refused(name: str) -> None:
    with pytest.raises(DeviceError, match=f"there is no precision '{name}'; use auto, fp32, fp16 or bf16"):
        pick_precision(name, CPU)


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="the whole of the memory is read from Linux's /proc")
def test_the_free_memory_is_some_of_the_memory() -> None:
    total = int(Path("/proc/meminfo").read_text(encoding="ascii").split()[1]) * 1024
    assert 0 < available_memory(CPU) <= total
