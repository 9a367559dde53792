"""The public function wave_field: validation, registration with torch.library, and the choice of a backend."""

from typing import Any

import torch
from torch import Tensor

from zellige.errors import ShapeError

from ..op import plain
from ..op.dispatch import Backend, choose_backend
from ..op.gradients import differentiated, reference_gradients
from ..op.rows import require_between
from ..op.validation import dtype_name, refuse, require, require_same_device
from .reference import wave_field_backward_reference, wave_field_reference

_RESULTS = (torch.float32, torch.float16, torch.bfloat16)
_NATIVE_DTYPES = (torch.float32, torch.bfloat16)


def wave_field(
    down: Tensor,
    across: Tensor,
    noise: Tensor,
    rows: Tensor,
    columns: Tensor,
    dtype: torch.dtype,
    *,
    every: int = 1,
    first: int = 0,
    backend: Backend | None = None,
) -> Tensor:
    """Compute plane waves and noise at every cell of a map, under factors that may lie on a coarser grid of rows.

    y_k = cos_k(row) A_k + sin_k(row) B_k for the K waves, y_(K + l) = noise[rows, columns]_l c_l for the L noises, with
    the factors A, B and c at row and column. Row i of the map lies at p = (first + i + 1/2) / every - 1/2 among the R
    rows of factors. Its factors are f + (p - floor(p)) (f' - f), with f those of row floor(p) and f' those of the next
    row; at a whole p they are f. All is float32, each product and sum is rounded by itself, and the result once more.
    So all backends give the same bits, and a cell has the same in any map.

    It is differentiable in down, across and noise any number of times: gradients, gradients of gradients, forward mode
    and torch.func go through the reference.

    Args:
        down: [N, S, 2K], any strides; float32, or float64 (reference only). Cosines, then sines, of the waves at each
            row of the map.
        across: [N, R, T, 2K + L], down's dtype: A, B and c for each row of factors and each column of the map.
        noise: [H, W, L], down's dtype: a table.
        rows, columns: [N, S] and [N, T], int64: which of the table's cells the map's are, from 0. Triton takes NaN for
            cells that the table lacks, because asking for them would stall a GPU.
        dtype: of the result; float32, float16 or bfloat16, or float64 for float64 arguments.
        every: rows of the map for each row of factors, at least 1.
        first: the map's first row, counted in its own rows from the start of the first row of factors. With R = 1 all
            rows have the same factors, and `every` and `first` mean nothing.
        backend: forces "triton", "native" (float32 and bfloat16) or "reference"; None takes the device's best one.

    Returns:
        [N, K + L, S, T], channels-last.

    Raises:
        ShapeError: an argument has a rank, size, dtype or device that is not listed above, or a row lies beyond the
            factors' first or last.
        DeviceError: the backend asked for cannot run here.
        IndexError: on a CPU, the table has no such row or column.

    Source: the addition theorem, for this project's dense places (engine/systems/coco_gan/place.py).
    """
    _validate(down, across, noise, rows, columns, dtype, every, first)
    # No operator of ours stands in an exported network; __init__.py says why.
    if plain.this_thread.active or torch.compiler.is_exporting() or differentiated(down, across, noise):
        return wave_field_reference(down, across, noise, rows, columns, dtype, every, first)
    return _wave_field(down, across, noise, rows, columns, dtype, every, first, backend)


@torch.library.custom_op("zellige::wave_field", mutates_args=())
def _wave_field(
    down: Tensor,
    across: Tensor,
    noise: Tensor,
    rows: Tensor,
    columns: Tensor,
    dtype: torch.dtype,
    every: int,
    first: int,
    backend: str | None,
) -> Tensor:
    # The choice is made here because torch.compile would trace the search for backends in the public function.
    backend = choose_backend(down.device, backend, dtype, native=_NATIVE_DTYPES)
    if backend == "reference":
        return wave_field_reference(down, across, noise, rows, columns, dtype, every, first)
    y = _result(down, across, noise, dtype)
    if y.numel() == 0:
        return y
    down, across, noise, rows, columns = (t.detach().contiguous() for t in (down, across, noise, rows, columns))
    if backend == "triton":
        from .triton import wave_field_triton

        wave_field_triton(down, across, noise, rows, columns, y.permute(0, 2, 3, 1), every, first)
    else:
        from .. import _native

        _native.wave_field(down, across, noise, rows, columns, y.permute(0, 2, 3, 1), every, first)
    return y


@_wave_field.register_fake
def _(
    down: Tensor,
    across: Tensor,
    noise: Tensor,
    rows: Tensor,
    columns: Tensor,
    dtype: torch.dtype,
    every: int,
    first: int,
    backend: str | None,
) -> Tensor:
    return _result(down, across, noise, dtype)


@torch.library.custom_op("zellige::wave_field_backward", mutates_args=())
def _wave_field_backward(
    gradient: Tensor,
    down: Tensor,
    across: Tensor,
    noise: Tensor,
    rows: Tensor,
    columns: Tensor,
    every: int,
    first: int,
    needed: list[bool],
) -> list[Tensor]:
    if gradient.numel() == 0:
        return [t.new_zeros(t.shape) for t in _wanted((down, across, noise), needed)]
    return wave_field_backward_reference(gradient, down, across, noise, rows, columns, every, first, needed)


@_wave_field_backward.register_fake
def _(
    gradient: Tensor,
    down: Tensor,
    across: Tensor,
    noise: Tensor,
    rows: Tensor,
    columns: Tensor,
    every: int,
    first: int,
    needed: list[bool],
) -> list[Tensor]:
    return [t.new_empty(t.shape) for t in _wanted((down, across, noise), needed)]


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.dtype, ctx.every, ctx.first, _ = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, rows, columns = ctx.saved_tensors
    needed = list(ctx.needs_input_grad[:3])
    found: list[Tensor | None]
    if torch.is_grad_enabled() or differentiated(gradient):  # the gradients are to be differentiated

        def again(down: Tensor, across: Tensor, noise: Tensor) -> Tensor:
            return wave_field_reference(down, across, noise, rows, columns, ctx.dtype, ctx.every, ctx.first)

        found = reference_gradients(again, tensors, needed, gradient)
    else:
        made = iter(_wave_field_backward(gradient, *tensors, rows, columns, ctx.every, ctx.first, needed))
        found = [next(made) if need else None for need in needed]
    return *found, *[None] * 6


_wave_field.register_autograd(_backward, setup_context=_remember)


def _wanted(tensors: tuple[Tensor, ...], needed: list[bool]) -> list[Tensor]:
    return [tensor for tensor, need in zip(tensors, needed, strict=True) if need]


def _result(down: Tensor, across: Tensor, noise: Tensor, dtype: torch.dtype) -> Tensor:
    n, s, width = down.shape
    return down.new_empty((n, s, across.shape[2], width // 2 + noise.shape[2]), dtype=dtype).permute(0, 3, 1, 2)


def _validate(
    down: Tensor,
    across: Tensor,
    noise: Tensor,
    rows: Tensor,
    columns: Tensor,
    dtype: torch.dtype,
    every: int,
    first: int,
) -> None:
    wide = down.dtype
    if down.dim() != 3 or wide not in (torch.float32, torch.float64) or down.shape[2] % 2:
        refuse("down", down, "[N, S, 2K], float32 or float64")
    if noise.dim() != 3 or noise.dtype != wide:
        refuse("noise", noise, f"[H, W, L] {dtype_name(wide)}, as down")
    require_same_device("noise", noise, "down", down)
    samples, size, width = down.shape
    if across.dim() != 4 or across.shape[1] == 0:
        refuse("across", across, "[N, R, T, 2K + L], R of at least 1")
    coarse, columns_of_map = across.shape[1:3]
    require("across", across, (samples, coarse, columns_of_map, width + noise.shape[2]), (wide,), "down", down)
    require("rows", rows, (samples, size), (torch.int64,), "down", down)
    require("columns", columns, (samples, columns_of_map), (torch.int64,), "across", across)
    if dtype not in (_RESULTS if wide == torch.float32 else (wide,)):
        allowed = "float32, float16 or bfloat16" if wide == torch.float32 else "float64"
        raise ShapeError(f"dtype is {dtype_name(dtype)}; it must be {allowed} for {dtype_name(wide)} arguments.")
    require_between("across", coarse, size, every, first)
