"""affine_relu_rows: factors of some rows with straight lines between them, and a map to add."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from zellige.errors import ShapeError
from zellige.kernels import affine_relu, affine_relu_rows, plain_operators

from .judge import assert_same_bits

DTYPES = [torch.float32, torch.bfloat16]
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)
Arguments = tuple[Tensor, Tensor, Tensor, Tensor]


def arguments(
    size: tuple[int, int, int, int], rows: int, dtype: torch.dtype, channels_last: bool, columns: int | None = None
) -> Arguments:
    random = torch.Generator().manual_seed(0)
    n, c, _, w = size
    x, plus = (torch.randn(size, generator=random).to(dtype) for _ in range(2))
    scale, shift = (torch.randn(n, c, rows, columns or w, generator=random) for _ in range(2))
    if channels_last:
        x, plus = (t.contiguous(memory_format=torch.channels_last) for t in (x, plus))
    return x, scale, shift, plus


def by_the_book(x: Tensor, scale: Tensor, shift: Tensor, plus: Tensor, every: int, first: int) -> Tensor:
    """In float64, with torch's own resampling, which is the same straight lines."""
    x, scale, shift, plus = (t.double() for t in (x, scale, shift, plus))
    if scale.shape[2] > 1:
        size = scale.shape[2] * every, scale.shape[3]
        scale, shift = (
            F.interpolate(t, size, mode="bilinear", align_corners=False)[:, :, first : first + x.shape[2]]
            for t in (scale, shift)
        )
    return F.relu(x * scale + shift + plus)


@dtypes
@pytest.mark.parametrize("backend", ["native", "reference", None])
@given(
    size=st.tuples(st.integers(0, 2), st.integers(1, 19), st.integers(0, 9), st.integers(1, 21)),
    every=st.sampled_from([1, 2, 3, 8]),
    rows=st.integers(1, 5),
    extra=st.integers(0, 3),
    channels_last=st.booleans(),
    one_column=st.booleans(),
)
def test_it_is_the_formula(
    dtype: torch.dtype, backend: str, size: tuple[int, int, int, int], every: int, rows: int, extra: int,
    channels_last: bool, one_column: bool,
) -> None:  # fmt: skip
    first = every // 2 + extra
    if rows > 1:  # enough rows of factors
        rows = (first + size[2]) // every + 2
    given = arguments(size, rows, dtype, channels_last, 1 if one_column else None)
    y = affine_relu_rows(*given, every=every, first=first, backend=backend)  # type: ignore[arg-type]
    assert y.dtype == dtype and y.shape == given[0].shape
    expected = by_the_book(*given, every, first)
    tolerance = 1e-5 if dtype == torch.float32 else 2**-8
    torch.testing.assert_close(y.double(), expected, rtol=tolerance, atol=tolerance)


@dtypes
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_native_kernel_has_the_bits_of_the_reference(dtype: torch.dtype, channels_last: bool) -> None:
    x, scale, shift, plus = arguments((2, 19, 33, 21), 7, dtype, channels_last)
    for added in (plus, None):
        one, other = (
            affine_relu_rows(x, scale, shift, added, every=8, first=5, backend=backend)
            for backend in ("native", "reference")
        )
        assert_same_bits(one, other)


@dtypes
def test_a_row_has_the_same_bits_wherever_the_map_begins(dtype: torch.dtype) -> None:
    x, scale, shift, plus = arguments((1, 24, 40, 33), 8, dtype, True)
    whole = affine_relu_rows(x, scale, shift, plus, every=8, first=6)
    part = affine_relu_rows(
        x[:, :, 11:30, 5:], scale[..., 5:], shift[..., 5:], plus[:, :, 11:30, 5:], every=8, first=17
    )
    assert torch.equal(part, whole[:, :, 11:30, 5:])


@dtypes
def test_factors_of_one_row_are_those_of_affine_relu(dtype: torch.dtype) -> None:
    x, scale, shift, _ = arguments((2, 24, 6, 9), 1, dtype, True)
    assert torch.equal(affine_relu_rows(x, scale, shift), affine_relu(x, scale, shift))
    still = scale[:, :, 0, 0], shift[:, :, 0, 0]
    assert torch.equal(affine_relu_rows(x, *still), affine_relu(x, *still))


def test_nan_and_infinity_stay_where_they_are() -> None:
    x, scale, shift, plus = arguments((1, 2, 9, 3), 4, torch.float32, True)
    scale[:, :, 3] = float("inf")
    shift[:, :, 3] = float("nan")
    odd = affine_relu_rows(x, scale, shift, plus, every=3, first=1)
    assert odd[:, :, :6].isfinite().all() and odd[:, :, 6:].isnan().any()


def test_derivatives_are_those_of_the_formula() -> None:
    given = arguments((1, 2, 3, 4), 3, torch.float32, False)
    found = [t.clone().requires_grad_() for t in given]
    expected = [t.clone().double().requires_grad_() for t in given]
    affine_relu_rows(*found, every=2, first=1).square().sum().backward()
    by_the_book(*expected, 2, 1).square().sum().backward()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.grad, other.grad.float())  # type: ignore[union-attr]


def test_compilers_see_standard_operators() -> None:
    given = arguments((1, 16, 9, 8), 4, torch.float32, True)

    def run(*tensors: Tensor) -> Tensor:
        return affine_relu_rows(*tensors, every=4, first=2)

    with plain_operators():
        program = torch.export.export(Run(run), given)
    assert not [node for node in program.graph.nodes if "zellige" in str(node.target)]
    torch.testing.assert_close(program.module()(*given), run(*given))


class Run(torch.nn.Module):
    def __init__(self, call: object) -> None:
        super().__init__()
        self.call = call

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.call(*tensors)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"scale": (2, 3, 2, 7)}, "scale is [2, 3, 2, 7] float32; it must be [2, 3], [2, 3, R, 5] or [2, 3, R, 1]"),
        ({"shift": (2, 3)}, "shift is [2, 3] float32; it must be [2, 3, 4, 5] float32 for x of shape [2, 3, 4, 5]."),
        ({"plus": (2, 3, 4, 1)}, "plus is [2, 3, 4, 1] float32; it must be [2, 3, 4, 5] float32 for x of shape"),
    ],
)
def test_bad_arguments_are_named(changed: dict[str, tuple[int, ...]], sentence: str) -> None:
    shapes = {"x": (2, 3, 4, 5), "scale": (2, 3, 4, 5), "shift": (2, 3, 4, 5), "plus": (2, 3, 4, 5)} | changed
    with pytest.raises(ShapeError) as caught:
        affine_relu_rows(**{name: torch.zeros(shape) for name, shape in shapes.items()})
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(("every", "first"), [(4, 1), (4, 11), (0, 0)])
def test_rows_beyond_the_given_ones_are_refused(every: int, first: int) -> None:
    x, scale, shift, plus = arguments((1, 2, 3, 4), 3, torch.float32, False)
    with pytest.raises(ShapeError, match="rows of scale|every is 0"):
        affine_relu_rows(x, scale, shift, plus, every=every, first=first)
