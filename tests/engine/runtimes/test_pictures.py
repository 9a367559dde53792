import builtins
import re
import sys
import types
from typing import Any

import numpy as np
import pytest
import torch

from zellige.engine.files.pictures import to_uint8
from zellige.engine.runtimes import checked_as, converted, joined
from zellige.errors import DeviceError, MissingExtraError, ShapeError, ValuesError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
EVERY_BYTE = torch.arange(256, dtype=torch.uint8).repeat(3).reshape(1, 16, 16, 3)


def floats(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.linspace(-1.2, 1.2, 2 * 3 * 5 * 7).reshape(2, 3, 5, 7).to(dtype)


def test_bytes_are_handed_over_as_they_are() -> None:
    array, tensor = converted(EVERY_BYTE, "numpy"), converted(EVERY_BYTE, "torch")
    assert isinstance(array, np.ndarray) and array.dtype == np.uint8 and array.shape == (1, 16, 16, 3)
    assert tensor.data_ptr() == EVERY_BYTE.data_ptr() == array.ctypes.data


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_floating_images_become_the_bytes_of_files(dtype: torch.dtype) -> None:
    for as_ in ("numpy", "torch"):
        assert np.array_equal(np.asarray(converted(floats(dtype), as_)), to_uint8(floats(dtype)))


def test_floating_images_stay_what_they_are_as_floats() -> None:
    assert torch.equal(converted(floats(), "float"), floats())
    assert converted(floats(torch.bfloat16), "float").dtype == torch.float32


def test_bytes_as_floats_reach_both_ends_and_come_back() -> None:
    found = converted(EVERY_BYTE, "float")
    assert (found.shape, found.dtype) == ((1, 3, 16, 16), torch.float32)
    assert (found.min(), found.max()) == (-1, 1)
    assert torch.equal(converted(found, "torch"), EVERY_BYTE)


@pytest.mark.parametrize("as_", ["numpy", "torch", "float"])
def test_a_value_that_is_no_number_becomes_no_byte(as_: Any) -> None:
    images = floats()
    images[1, 2, 3, 4] = float("nan")
    with pytest.raises(ValuesError, match=r"^emoji gives values that are no numbers"):
        converted(images, as_, "emoji")


@pytest.mark.parametrize("as_", ["torch", "float"])
@pytest.mark.parametrize("kind", ["bytes", "floats"])
def test_tensors_of_a_run_can_be_trained_with(as_: Any, kind: str) -> None:
    with torch.inference_mode():
        images = EVERY_BYTE.clone() if kind == "bytes" else floats().clone()
    weight = torch.ones(1, requires_grad=True)
    (converted(images, as_).float() * weight).sum().backward()
    assert weight.grad is not None


def test_cupy_takes_the_memory_of_the_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(from_dlpack=lambda tensor: tensor))
    assert checked_as("cupy", CUDA) == "cupy"


@pytest.mark.gpu
def test_cupy_arrays_share_the_bytes() -> None:
    cupy = pytest.importorskip("cupy")
    pixels = EVERY_BYTE.cuda()
    array = converted(pixels, "cupy")
    assert isinstance(array, cupy.ndarray) and array.data.ptr == pixels.data_ptr()
    assert np.array_equal(cupy.asnumpy(array), EVERY_BYTE.numpy())


def test_cupy_on_a_cpu_is_refused() -> None:
    sentence = "CuPy arrays live on CUDA devices, and this model runs on cpu; use as_='numpy'"
    for call in (lambda: checked_as("cupy", CPU), lambda: converted(EVERY_BYTE, "cupy")):
        with pytest.raises(DeviceError, match=f"^{re.escape(sentence)}$"):
            call()


def test_without_cupy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **named: Any) -> Any:
        if name == "cupy":
            raise ImportError(name)
        return real(name, *args, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"^as_='cupy' needs the package 'cupy'; install .*zellige\[cuda\]'$"):
        checked_as("cupy", CUDA)


def test_other_kinds_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"^as_ is 'jax'; it must be 'numpy', 'torch', 'cupy' or 'float'\.$"):
        checked_as("jax", CPU)


@pytest.mark.parametrize("images", [torch.zeros(2, 4, 4), torch.zeros(1, 4, 4, 3), torch.zeros(1, 3, 4, 4).byte()])
def test_what_is_no_image_is_refused(images: torch.Tensor) -> None:
    sentence = f"images must be uint8 [N, H, W, 3] or floating [N, 3, H, W]; got {images.dtype} {list(images.shape)}"
    with pytest.raises(ShapeError, match=f"^{re.escape(sentence)}$"):
        converted(images, "numpy")


def test_lent_rows_are_copied_and_a_single_kept_batch_is_not() -> None:
    rows = torch.arange(6.0).reshape(3, 2)
    assert joined([(0, rows)], 3, lent=False) is rows
    copied = joined([(0, rows)], 3, lent=True)
    assert torch.equal(copied, rows) and copied.data_ptr() != rows.data_ptr()
    assert torch.equal(joined([(0, rows), (3, rows + 1)], 6, lent=False), torch.cat([rows, rows + 1]))
