"""Triton's interpreter with the rounding of a device, and with less to do."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def rounding_as_on_a_device() -> Iterator[None]:
    """Round float32 to the nearest bfloat16, as devices do: the interpreter cuts the low bits off.

    Its own rounding, which kernels cannot ask for anyway, loses the carry into the exponent.
    """
    if os.environ.get("TRITON_INTERPRET") != "1":
        yield
        return
    from triton import language as tl
    from triton.runtime import interpreter

    convert = interpreter._convert_float

    def rounded(value: np.ndarray, source: Any, target: Any, mode: Any) -> np.ndarray:
        if source == tl.float32 and target == tl.bfloat16:
            contiguous = torch.from_numpy(np.array(value, dtype=np.float32))
            return contiguous.to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
        return convert(value, source, target, mode)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_convert_float", rounded)
        yield
