"""The claims at full shapes on a device: values, gradients, graphs, autocast, and maps of more than 2**31 values."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from .judge import DTYPES, assert_as_exact_as_eager, assert_same_bits
from .subject import Subject, doubles
from .subjects import DIFFERENTIABLE, ON_GPUS, each

pytestmark = pytest.mark.gpu

dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)
OF_SAMPLES = [s for s in ON_GPUS if s.native and not s.name.startswith(("feather", "wave"))]


def on_device(subject: Subject, dtype: torch.dtype, layout: str = "contiguous", seed: int = 0) -> list[Tensor]:
    return [t.cuda() for t in subject.lay(subject.make(subject.full, dtype, seed), layout)]


def layouts(subject: Subject) -> list[str]:
    # Attention's layouts are copied before the kernel, and its full shape takes gigabytes in float64.
    return list(subject.layouts) if subject.make(subject.small)[0].dim() == 4 else list(subject.layouts[:2])


@dtypes
@each(ON_GPUS)
def test_result_is_as_exact_as_eager_in_every_layout(subject, dtype):
    for layout in layouts(subject):
        tensors = on_device(subject, dtype, layout)
        y = subject.call(*tensors, backend="triton")
        subject.judge(y, tensors)
        if "triton" in subject.equal and subject.name != "mask_composite, finished":
            assert_same_bits(y, subject.call(*tensors, backend="reference"))


@dtypes
@each(DIFFERENTIABLE)
def test_gradients_are_as_exact_as_eager_in_both_orders(subject, dtype):
    def gradients(function: Callable[..., Tensor], tensors: list[Tensor]) -> list[Tensor]:
        leaves = subject.leaves(tensors)
        y = function(*leaves)
        # Sums over a map stay of the size of its values: their error is that of sums.
        slope = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).bfloat16().to(y) / y[0].numel() ** 0.5
        return list(torch.autograd.grad(y, leaves, slope.bfloat16().to(y.dtype)))

    for layout in subject.layouts[:2]:
        tensors = on_device(subject, dtype, layout)
        found = gradients(lambda *t: subject.call(*t, backend="triton"), tensors)
        by_eager, exact = gradients(subject.textbook, tensors), gradients(subject.textbook, doubles(tensors))
        for triple in zip(found, by_eager, exact, strict=True):
            assert_as_exact_as_eager(*triple)


@each(ON_GPUS)
def test_hundred_runs_give_the_same_bits(subject):
    leaves = subject.leaves([t.cuda() for t in subject.make(subject.sizes[1])])

    def run() -> list[Tensor]:
        y = subject.call(*leaves, backend="triton")
        return [y.detach(), *(torch.autograd.grad(y.sum(), leaves) if subject.gradients else ())]

    first = run()
    for _ in range(100):
        for again, once in zip(run(), first, strict=True):
            assert_same_bits(again, once)


@each(ON_GPUS)
def test_a_captured_graph_computes_anew(subject):
    static, others = ([t.cuda() for t in subject.make(subject.small, seed=seed)] for seed in (0, 1))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # what is compiled or tuned at first use must not be captured
        subject.call(*static, backend="triton")
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = subject.call(*static, backend="triton")
    for into, values in zip(static, others, strict=True):
        into.copy_(values)
    graph.replay()
    assert_same_bits(y, subject.call(*others, backend="triton"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@each(ON_GPUS)
def test_autocast_changes_no_bit(subject, dtype):
    leaves = subject.leaves([t.cuda() for t in subject.make(subject.small, dtype)])

    def run(enabled: bool) -> list[Tensor]:
        with torch.autocast("cuda", dtype, enabled=enabled):
            y = subject.call(*leaves, backend="triton")
            if not subject.gradients:
                return [y]
            return [y, *torch.autograd.grad(y.float().pow(2).sum(), leaves, create_graph=True)]

    for actual, expected in zip(run(True), run(False), strict=True):
        assert_same_bits(actual.detach(), expected.detach())


@pytest.mark.parametrize("channels_last", [False, True], ids=["by plane", "by pixel"])
@each(OF_SAMPLES)
def test_more_than_two_to_the_31_values_are_addressed(subject, channels_last):
    """The last sample of a batch whose offsets need 64 bits is what it is alone."""
    free = torch.cuda.mem_get_info()[0]
    if free < 40 * 2**30:
        pytest.skip(f"needs 40 GiB of device memory, and {free / 2**30:.0f} GiB are free")
    size = (1, 3 if subject.name.startswith("mask") else 64, 256, 256)
    one = [t.cuda().bfloat16() for t in subject.make(size, torch.bfloat16)]
    samples = 2**31 // one[0].numel() + 2
    batch = []
    for t in one:
        of_samples = t.dim() > 1 and t.shape[0] == 1
        batch.append(t.repeat(samples, *[1] * (t.dim() - 1)) if of_samples else t)
    if channels_last:
        batch = [t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t for t in batch]
        one = [t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t for t in one]
    y = subject.call(*batch, backend="triton")
    expected = subject.call(*one, backend="triton")
    for k in (0, samples // 2, samples - 1):
        assert_same_bits(y[k : k + 1], expected)
