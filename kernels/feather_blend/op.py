"""The public function feather_blend: validation, registration with torch.library, and the choice of a backend."""

from typing import Literal

import torch
from torch import Tensor

from zellige.errors import ShapeError

from ..op.dispatch import Backend, choose_backend
from ..op.gradients import differentiated, no_derivative, refuse_derivative
from ..op.levels import bytes_of
from ..op.validation import refuse, require
from .reference import feather_blend_reference

_PATCH_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_OUTPUT_DTYPES = {"uint8": torch.uint8, "float": torch.float32}
_LARGEST_SIDE = 2**31 - 128  # picture coordinates are int32 on the GPU, and a tile may reach beyond the border


def feather_blend(
    patches: Tensor,
    positions: Tensor,
    window_rows: Tensor,
    window_columns: Tensor,
    size: tuple[int, int],
    *,
    output: Literal["uint8", "float"] = "uint8",
    backend: Backend | None = None,
) -> Tensor:
    """Blend overlapping patches into one picture, as the mean of the patches under a separable window.

    v[y, x] = sum_n w_n p_n[:, y - top_n, x - left_n] / sum_n w_n with w_n = r[y - top_n] c[x - left_n], over the
    patches n that cover (y, x), and v = 0 if the sum of the weights is 0. A byte is round((v + 1) * 127.5), half to
    even, limited to [0, 255].

    Sums are float32 and run in the order of n, without fused multiply-adds, so that all backends and any number of
    threads give the same bits. A pixel that only one patch covers, with a weight of 1, has the patch's bits.
    It is for inference only: it has no derivative.

    Args:
        patches: [N, C, P, Q], 1 to 4 channels, any strides; float32, float16 or bfloat16; values in [-1, 1].
        positions: [N, 2], int64, in picture pixels: top and left of each patch. Parts outside the picture are cut off.
        window_rows: r, [P], float32, finite and not negative (values are not checked: that would stall a GPU).
        window_columns: c, [Q], float32, likewise.
        size: (H, W) of the picture in pixels.
        output: "uint8" for bytes, "float" for v.
        backend: forces "triton", "native" or "reference"; None takes the best one for the device.

    Returns:
        [H, W, C], contiguous, uint8 or float32. Pixels without weight are 0.0, or 128 as bytes. NaN becomes byte 0.

    Raises:
        ShapeError: an argument has a rank, size, dtype or device that is not listed above.
        DeviceError: the backend asked for cannot run here.

    Source: this project.
    """
    _validate(patches, positions, window_rows, window_columns, size, output)
    if differentiated(patches, window_rows, window_columns):
        refuse_derivative("feather_blend")
    return _blend(patches, positions, window_rows, window_columns, *size, output, backend)


@torch.library.custom_op("zellige::feather_blend", mutates_args=())
def _blend(
    patches: Tensor,
    positions: Tensor,
    window_rows: Tensor,
    window_columns: Tensor,
    height: int,
    width: int,
    output: str,
    backend: str | None,
) -> Tensor:
    # The choice is made here because torch.compile would trace the search for backends in the public function.
    backend = choose_backend(patches.device, backend)
    if backend == "reference":
        picture = feather_blend_reference(patches, positions, window_rows, window_columns, height, width)
        return bytes_of(picture) if output == "uint8" else picture
    picture = patches.new_empty((height, width, patches.shape[1]), dtype=_OUTPUT_DTYPES[output])
    positions, window_rows, window_columns = (t.contiguous() for t in (positions, window_rows, window_columns))
    if backend == "triton":
        from .triton import feather_blend_triton

        feather_blend_triton(patches, positions, window_rows, window_columns, picture)
    else:
        from .. import _native

        _native.feather_blend(_with_dense_rows(patches), positions, window_rows, window_columns, picture)
    return picture


@_blend.register_fake
def _(
    patches: Tensor,
    positions: Tensor,
    window_rows: Tensor,
    window_columns: Tensor,
    height: int,
    width: int,
    output: str,
    backend: str | None,
) -> Tensor:
    return patches.new_empty((height, width, patches.shape[1]), dtype=_OUTPUT_DTYPES[output])


_blend.register_autograd(no_derivative("feather_blend"))


def _with_dense_rows(patches: Tensor) -> Tensor:
    """Copy the patches unless their rows are contiguous, by channel or by pixel; any other strides will do."""
    _, channels, _, columns = patches.shape
    planar = columns == 1 or patches.stride(3) == 1
    interleaved = patches.stride(1) == 1 and patches.stride(3) == channels
    return patches if planar or interleaved else patches.contiguous()


def _validate(
    patches: Tensor,
    positions: Tensor,
    window_rows: Tensor,
    window_columns: Tensor,
    size: tuple[int, int],
    output: str,
) -> None:
    if patches.dim() != 4 or patches.dtype not in _PATCH_DTYPES or not 1 <= patches.shape[1] <= 4:
        refuse("patches", patches, "[N, C, P, Q] with 1 to 4 channels, float32, float16 or bfloat16")
    count, _, rows, columns = patches.shape
    if rows == 0 or columns == 0:
        refuse("patches", patches, "at least one row and one column")
    expected = {
        "positions": (positions, (count, 2), torch.int64),
        "window_rows": (window_rows, (rows,), torch.float32),
        "window_columns": (window_columns, (columns,), torch.float32),
    }
    for name, (tensor, shape, dtype) in expected.items():
        require(name, tensor, shape, (dtype,), "patches", patches)
    if len(size) != 2 or not all(1 <= side <= _LARGEST_SIDE for side in size):
        raise ShapeError(f"size is {tuple(size)}; it must be (height, width), each from 1 to {_LARGEST_SIDE}.")
    if output not in _OUTPUT_DTYPES:
        raise ShapeError(f"output is {output!r}; it must be 'uint8' or 'float'.")
