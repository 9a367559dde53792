"""How kernels are judged: against the reference in float64, on maps that lie in memory in every way."""

from collections.abc import Callable

import torch
from torch import Tensor

DTYPES = [torch.float32, torch.float16, torch.bfloat16]

# Each takes a map [N, C, H, W] and returns one, not always of the same size, whose memory is unusual.
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "channels-last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "sliced": lambda x: x.repeat(1, 1, 2, 3)[:, :, 1 : x.shape[2] + 1, ::2],
    "every second channel": lambda x: x.repeat_interleave(2, 1)[:, ::2],
    "flipped sides": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "expanded samples": lambda x: x[:1].expand_as(x),
    "expanded channels": lambda x: x[:, :1].expand_as(x),
    "expanded pixels": lambda x: x[:, :, :1, :1].expand_as(x),
    "a channels-last slice": lambda x: x.contiguous(memory_format=torch.channels_last)[:, :, 1:, 1:],
    "misaligned": lambda x: torch.cat([x.flatten()[:1], x.flatten()])[1:].view_as(x),
}


def assert_as_exact_as_eager(actual: Tensor, eager: Tensor, exact: Tensor) -> None:
    """The rule of precision: float32 within torch.testing's defaults, lower ones at most twice eager's error.

    Args:
        actual: the kernel's result.
        eager: plain PyTorch's in the same dtype.
        exact: the reference's in float64.
    """
    assert actual.dtype == eager.dtype and actual.shape == exact.shape
    if actual.dtype == torch.float32:
        torch.testing.assert_close(actual, exact.float(), equal_nan=True)
        return
    finite = exact.isfinite() & (exact.abs() < torch.finfo(actual.dtype).max)
    assert torch.equal(actual.isnan(), exact.isnan())
    error, allowed = ((t.double() - exact)[finite].abs().max().item() if finite.any() else 0 for t in (actual, eager))
    # Where eager happens to be exact, half a unit in the last place is still right.
    unit = torch.finfo(actual.dtype).eps * (exact[finite].abs().max().item() if finite.any() else 0)
    assert error <= max(2 * allowed, unit / 2), f"error {error:.3g}, eager's {allowed:.3g}"


def assert_same_bits(actual: Tensor, expected: Tensor) -> None:
    """Equal in every bit, except that any NaN equals any other."""
    assert actual.dtype == expected.dtype and actual.shape == expected.shape
    same = (actual == expected) & (actual.signbit() == expected.signbit()) | (actual.isnan() & expected.isnan())
    assert same.all(), f"{(~same).sum()} of {same.numel()} values differ"
