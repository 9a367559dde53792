"""How kernels are judged: against the definition in float64, on tensors that lie in memory in every way."""

from collections.abc import Callable
from random import Random

import torch
from torch import Tensor
from torch.nn import functional as F

DTYPES = [torch.float32, torch.float16, torch.bfloat16]

# Each takes a map [N, C, H, W] and returns one, not always of the same sides, whose memory is unusual.
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

# The same for tensors [..., rows, columns], which keep their shape.
ROW_LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda t: t,
    "flipped": lambda t: t.mT.contiguous().mT,
    "a map by plane": lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
    "every second column": lambda t: t.repeat_interleave(2, -1)[..., ::2],
    "sliced": lambda t: F.pad(t, (3, 2, 1, 1))[..., 1:-1, 3:-2],
    "misaligned": lambda t: torch.cat([t.flatten()[:1], t.flatten()])[1:].view_as(t),
    "expanded samples": lambda t: t[:1].expand_as(t),
    "expanded rows": lambda t: t[..., :1, :].expand_as(t),
    "expanded columns": lambda t: t[..., :1].expand_as(t),
}


def scattered(x: Tensor, random: Random) -> Tensor:
    """Copy a tensor to where its dimensions lie in any order and at any distance, with NaN in all gaps."""
    order = random.sample(range(x.dim()), x.dim())
    steps = [random.choice((1, 1, 2, 3)) for _ in order]
    sides = [x.shape[k] * step for k, step in zip(order, steps, strict=True)]
    offset = random.randrange(3)
    gap = float("nan") if x.is_floating_point() else 10**6
    memory = x.new_full((offset + torch.Size(sides).numel(),), gap)[offset:].view(sides)
    view = memory[tuple(slice(None, None, step) for step in steps)]
    view.copy_(x.permute(order))
    return view.permute([order.index(k) for k in range(x.dim())])


def assert_as_exact_as_eager(actual: Tensor, eager: Tensor, exact: Tensor, units: float = 0.5) -> None:
    """The rule of precision: float32 within torch.testing's defaults, lower ones at most twice eager's error.

    Args:
        actual: the kernel's result.
        eager: plain PyTorch's in the same dtype.
        exact: the definition's in float64.
        units: in the last place of the largest value that lower ones may be off however exact eager happens to be.
    """
    assert actual.dtype == eager.dtype and actual.shape == exact.shape
    if actual.dtype == torch.float32:
        torch.testing.assert_close(actual, exact.float(), equal_nan=True)
        return
    finite = exact.isfinite() & (exact.abs() < torch.finfo(actual.dtype).max)
    assert torch.equal(actual.isnan(), exact.isnan())
    assert torch.equal(actual.double()[exact.isinf()], exact[exact.isinf()])
    error, allowed = ((t.double() - exact)[finite].abs().max().item() if finite.any() else 0 for t in (actual, eager))
    unit = torch.finfo(actual.dtype).eps * (exact[finite].abs().max().item() if finite.any() else 0)
    assert error <= max(2 * allowed, units * unit), f"error {error:.3g}, eager's {allowed:.3g}"


def assert_nearest_bytes(actual: Tensor, exact: Tensor) -> None:
    """Bytes [H, W, C] of values in [-1, 1]: half a byte off at most, and what float32 leaves of it; NaN is 0."""
    assert actual.dtype == torch.uint8 and actual.shape == exact.shape and actual.is_contiguous()
    scaled = ((exact + 1) * 127.5).clamp(0, 255).nan_to_num(nan=0.0)
    # (v + 1) * 127.5 alone is rounded by up to 1.5e-5 in float32, and v by as much for each unit in its last place.
    assert ((actual - scaled).abs() <= 0.5 + 1e-4).all()


def assert_nearest(index: Tensor, distances: Tensor) -> None:
    """No centroid is nearer by more than float32 can tell; of those that are equally near the first wins."""
    assert index.dtype == torch.int64 and index.shape == distances.shape[:1]
    least = distances.amin(1)
    chosen = distances.gather(1, index[:, None])[:, 0]
    nowhere = least.isinf()
    assert (index[nowhere] == 0).all()
    assert ((chosen - least) <= 1e-5 * (1 + least.abs()))[~nowhere].all()


def assert_same_bits(actual: Tensor, expected: Tensor) -> None:
    """Equal in every bit, except that any NaN equals any other."""
    assert actual.dtype == expected.dtype and actual.shape == expected.shape
    if not actual.is_floating_point():
        assert torch.equal(actual, expected), f"{(actual != expected).sum()} of {actual.numel()} values differ"
        return
    same = (actual == expected) & (actual.signbit() == expected.signbit()) | (actual.isnan() & expected.isnan())
    assert same.all(), f"{(~same).sum()} of {same.numel()} values differ"
