"""What every differentiable kernel's gradients are, of first and second order, through every backend."""

from collections.abc import Callable, Sequence
from itertools import product
from random import Random

import pytest
import torch
from torch import Tensor

from zellige.errors import DerivativeError

from .judge import DTYPES, assert_as_exact_as_eager, assert_same_bits, scattered
from .subject import Subject, doubles
from .subjects import DIFFERENTIABLE, SUBJECTS, each, on_each_backend

NAMED = [s for s in SUBJECTS if not s.gradients]


def slope_for(y: Tensor, seed: int = 1) -> Tensor:
    """A gradient that comes in, of values that all dtypes hold."""
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(seed)).bfloat16().to(y.dtype)


def gradients(
    function: Callable[..., Tensor], leaves: Sequence[Tensor], slope: Callable[[Tensor], Tensor] = slope_for
) -> list[Tensor]:
    y = function(*leaves)
    return list(torch.autograd.grad(y, [t for t in leaves if t.requires_grad], slope(y)))


def through(subject: Subject, backend: str | None) -> Callable[..., Tensor]:
    return lambda *tensors: subject.call(*tensors, backend=backend)


def layouts_for(subject: Subject, backend: str | None, dtype: torch.dtype) -> Sequence[str]:
    # The interpreter takes up to a second a backward pass: the dtypes share the layouts.
    if backend != "triton" or dtype == torch.float32:
        return [*subject.layouts[:3], "expanded samples"][: 3 if backend == "triton" else 4]
    return subject.layouts[1:2] if dtype == torch.bfloat16 else subject.layouts[:1]


@on_each_backend(DIFFERENTIABLE, DTYPES)
def test_gradients_are_as_exact_as_eager(subject, backend, dtype):
    for layout in layouts_for(subject, backend, dtype):
        tensors = subject.lay(subject.make(subject.small, dtype), layout)
        found = gradients(through(subject, backend), subject.leaves(tensors))
        by_eager = gradients(subject.textbook, subject.leaves(tensors))
        exact = gradients(subject.textbook, subject.leaves(doubles(tensors)))
        for triple in zip(found, by_eager, exact, strict=True):
            assert_as_exact_as_eager(*triple)


@each([subject for subject in DIFFERENTIABLE if subject.native])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_native_threads_share_one_map_and_change_no_bit(subject, dtype):
    threads = torch.get_num_threads()
    for size in subject.shared:
        for layout in subject.layouts[:2]:
            tensors = subject.lay(subject.make(size, dtype), layout)
            found = []
            try:
                for count in (1, 2, 3):
                    torch.set_num_threads(count)
                    found.append(gradients(through(subject, "native"), subject.leaves(tensors)))
            finally:
                torch.set_num_threads(threads)
            by_eager = gradients(subject.textbook, subject.leaves(tensors))
            exact = gradients(subject.textbook, subject.leaves(doubles(tensors)))
            for one, *more, eager, right in zip(*found, by_eager, exact, strict=True):
                # Sums of thousands of values: eager's too miss the exact ones by more than an element may.
                off, allowed = ((t.double() - right).abs().max() for t in (one, eager))
                assert off <= 2 * allowed or torch.allclose(one.double(), right, rtol=1.3e-6, atol=1e-5)
                # A single number is noise's strength, whose sum is torch's.
                assert one.numel() == 1 or all(torch.equal(one, other) for other in more)


@on_each_backend(DIFFERENTIABLE)
def test_gradients_are_as_exact_as_eager_for_odd_sizes(subject, backend):
    for layout, sizes in (("contiguous", subject.sizes), ("channels-last", subject.deep[1:])):
        for size in sizes:
            tensors = subject.lay(subject.make(size, seed=1), layout)
            found = gradients(through(subject, backend), subject.leaves(tensors))
            exact = gradients(subject.textbook, subject.leaves(doubles(tensors)))
            for actual, expected in zip(found, exact, strict=True):
                torch.testing.assert_close(actual, expected.float())


@on_each_backend(DIFFERENTIABLE)
def test_a_gradient_may_lie_in_memory_in_any_way(subject, backend):
    tensors = subject.make(subject.small)
    ways = [
        (lambda y: scattered(slope_for(y), Random(5)), slope_for),
        (lambda y: torch.ones(()).expand(y.shape), torch.ones_like),
    ]
    # The interpreter takes up to a second a backward pass, and gradients are packed before any backend sees them.
    for slope, like in ways[:1] if backend == "triton" else ways:
        found = gradients(through(subject, backend), subject.leaves(tensors), slope)
        for actual, expected in zip(
            found, gradients(through(subject, backend), subject.leaves(tensors), like), strict=True
        ):
            torch.testing.assert_close(actual, expected)


@each(DIFFERENTIABLE)
def test_gradients_of_gradients_are_right(subject):
    size = tuple(min(side, 2) for side in subject.small)
    leaves = subject.leaves(subject.make(size, torch.float64, seed=3))
    function = through(subject, "reference")
    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


@on_each_backend(DIFFERENTIABLE)
def test_a_gradient_penalty_is_as_exact_as_eager(subject, backend):
    def penalty(function: Callable[..., Tensor], leaves: list[Tensor]) -> list[Tensor]:
        slopes = torch.autograd.grad(function(*leaves).pow(2).sum(), leaves[0], create_graph=True)
        return list(torch.autograd.grad(slopes[0].pow(2).sum(), leaves))

    tensors = subject.make(subject.small)
    found = penalty(through(subject, backend), subject.leaves(tensors))
    by_eager = penalty(subject.textbook, subject.leaves(tensors))
    exact = penalty(subject.textbook, subject.leaves(doubles(tensors)))
    for actual, eager, expected in zip(found, by_eager, exact, strict=True):
        assert actual.dtype == torch.float32
        error, allowed = ((t - expected).abs().max().item() for t in (actual, eager))
        # In units of the largest value 0.2 to 8.5 were measured, and 0.2 to 7.1 of eager.
        unit = torch.finfo(torch.float32).eps * expected.abs().max().item()
        assert error <= max(2 * allowed, 12 * unit)


@on_each_backend(DIFFERENTIABLE)
def test_a_backward_changes_nothing_that_was_saved(subject, backend):
    leaves = subject.leaves(subject.make(subject.small))
    y = subject.call(*leaves, backend=backend)
    slope = slope_for(y)
    watched = [*leaves, y, slope]
    before = [t.detach().clone() for t in watched]
    once = torch.autograd.grad(y, leaves, slope, retain_graph=True)
    again = torch.autograd.grad(y, leaves, slope, retain_graph=True)
    for now, then in zip(watched, before, strict=True):
        assert_same_bits(now.detach(), then)
    for actual, expected in zip(again, once, strict=True):
        assert_same_bits(actual, expected)
        assert actual.data_ptr() not in {t.data_ptr() for t in (*watched, *once)}
    graph = torch.autograd.grad(y, leaves, slope, create_graph=True)  # by the reference, from the same saved tensors
    for actual, expected in zip(graph, once, strict=True):
        torch.testing.assert_close(actual.detach(), expected)


@on_each_backend(DIFFERENTIABLE)
@pytest.mark.parametrize("create_graph", [False, True], ids=["once", "twice"])
def test_only_wanted_gradients_are_made(subject, backend, create_graph):
    tensors = subject.make(subject.small)

    def made(wanted: Sequence[bool]) -> list[Tensor | None]:
        leaves = [t.clone().requires_grad_(want) for t, want in zip(tensors, wanted, strict=True)]
        y = subject.call(*leaves, backend=backend)
        found = iter(
            torch.autograd.grad(y, [t for t in leaves if t.requires_grad], slope_for(y), create_graph=create_graph)
        )
        return [next(found).detach() if want else None for want in wanted]

    every = made([True] * len(tensors))
    subsets = list(product((False, True), repeat=len(tensors)))[1:-1]
    for wanted in subsets[:1] if backend == "triton" else subsets:  # that kernel makes all of them in any case
        for found, expected, want in zip(made(wanted), every, wanted, strict=True):
            assert (found is not None) == want
            if want:
                torch.testing.assert_close(found, expected)


@on_each_backend(DIFFERENTIABLE, DTYPES[1:])
def test_every_tensor_may_have_the_dtype_of_the_map(subject, backend, dtype):
    tensors = [t.to(dtype) for t in subject.make(subject.small, dtype)]
    leaves = subject.leaves(tensors)
    y = subject.call(*leaves, backend=backend)
    subject.judge(y.detach(), tensors)
    for found, leaf in zip(torch.autograd.grad(y, leaves, slope_for(y)), leaves, strict=True):
        assert found.dtype == leaf.dtype and found.shape == leaf.shape


@on_each_backend(DIFFERENTIABLE)
def test_gradients_of_nothing_are_zeros(subject, backend):
    for size in subject.empty:
        leaves = subject.leaves(subject.make(size))
        y = subject.call(*leaves, backend=backend)
        for found, leaf in zip(torch.autograd.grad(y.sum(), leaves), leaves, strict=True):
            assert found.shape == leaf.shape and found.dtype == leaf.dtype and not found.any()


@on_each_backend(DIFFERENTIABLE)
def test_hundred_backwards_give_the_same_bits(subject, backend):
    leaves = subject.leaves(subject.make(subject.small))
    first = gradients(through(subject, backend), leaves)
    # The interpreter takes up to a second a run; 100 runs of Triton are for devices.
    for _ in range(2 if backend == "triton" else 100):
        for again, once in zip(gradients(through(subject, backend), leaves), first, strict=True):
            assert_same_bits(again, once)


@on_each_backend(NAMED)
def test_what_has_no_derivative_says_so(subject, backend):
    tensors = [t.requires_grad_(t.is_floating_point()) for t in subject.make(subject.small)]
    y = subject.call(*tensors, backend=backend)
    if subject.kind == "values":
        with pytest.raises(
            DerivativeError, match="is for inference only and has no derivative; detach its arguments.$"
        ):
            y.sum().backward()
    else:
        assert not y.requires_grad
