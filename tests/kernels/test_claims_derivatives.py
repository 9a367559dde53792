"""What forward mode and the transforms of torch.func make of a kernel: derivatives or a refusal, and never zeros."""

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from zellige.errors import DerivativeError
from zellige.kernels import affine_relu, winograd_conv, winograd_weight

from .subject import Subject
from .subjects import DIFFERENTIABLE, SUBJECTS, each

pytestmark = pytest.mark.filterwarnings("ignore:.*batching rule")

REFUSED = [s for s in SUBJECTS if (s.kind == "values" and not s.gradients) or s.name.startswith("feather")]
CONSTANT = [s for s in SUBJECTS if s.kind != "values" and s not in REFUSED]


def doubled(subject: Subject) -> list[Tensor]:
    return subject.make(tuple(min(side, 2) for side in subject.small), torch.float64, seed=3)


def jacobians(subject: Subject, tensors: list[Tensor]) -> list[Tensor]:
    """By reverse mode, one row after the other, which other tests hold against the definition."""
    return list(torch.autograd.functional.jacobian(lambda *t: subject.call(*t, backend=None), tuple(tensors)))


@each(DIFFERENTIABLE)
def test_every_way_to_a_jacobian_gives_the_same(subject):
    tensors = doubled(subject)
    places = tuple(range(len(tensors)))

    def call(*given: Tensor) -> Tensor:
        return subject.call(*given, backend=None)

    right = jacobians(subject, tensors)
    for found in (
        torch.func.jacfwd(call, places)(*tensors),
        torch.func.jacrev(call, places)(*tensors),
        torch.autograd.functional.jacobian(call, tuple(tensors), vectorize=True, strategy="forward-mode"),
    ):
        for actual, expected in zip(found, right, strict=True):
            torch.testing.assert_close(actual, expected)


@each(DIFFERENTIABLE)
def test_a_dual_number_carries_its_tangent_through_a_kernel_and_through_its_gradient(subject):
    tensors = [t.float() for t in doubled(subject)]
    tangents = [torch.randn_like(t) for t in tensors]
    _, right = torch.func.jvp(lambda *t: subject.textbook(*t), tuple(tensors), tuple(tangents))
    leaves = subject.leaves(tensors)
    y = subject.call(*leaves, backend=None)
    (by_gradient,) = torch.autograd.grad((right * y).sum(), leaves[:1], retain_graph=True)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(t, d) for t, d in zip(tensors, tangents, strict=True)]
        tangent = forward_ad.unpack_dual(subject.call(*duals, backend=None)).tangent
        slope = forward_ad.make_dual(torch.zeros_like(right), right)  # gradients are linear in what comes in
        of_slope = forward_ad.unpack_dual(torch.autograd.grad(y, leaves[:1], slope)[0]).tangent
    torch.testing.assert_close(tangent, right)
    torch.testing.assert_close(of_slope, by_gradient)


@each(DIFFERENTIABLE)
def test_gradients_of_each_sample_equal_a_loop(subject):
    sets = [subject.make(subject.small, seed=seed) for seed in range(2)]

    def loss(*given: Tensor) -> Tensor:
        return subject.call(*given, backend=None).square().sum()

    found = torch.vmap(torch.func.grad(loss))(*(torch.stack(tensors) for tensors in zip(*sets, strict=True)))
    for actual, tensors in zip(found, sets, strict=True):
        leaves = subject.leaves(tensors)
        torch.testing.assert_close(actual, torch.autograd.grad(loss(*leaves), leaves[0])[0], rtol=1e-4, atol=1e-4)


def test_forward_mode_within_compiled_code_is_eagers():
    torch.compiler.reset()
    x, factors, tangent = torch.randn(2, 3, 4, 5), torch.randn(2, 2, 3), torch.randn(2, 3, 4, 5)

    def slope(x: Tensor, tangent: Tensor) -> Tensor:
        return torch.func.jvp(lambda x: affine_relu(x, *factors), (x,), (tangent,))[1]

    found = torch.compile(slope, backend="eager", fullgraph=True)(x, tangent)
    torch.testing.assert_close(found, slope(x, tangent))
    assert found.any()


def test_what_was_compiled_without_dual_numbers_is_compiled_anew_for_them():
    torch.compiler.reset()
    x, factors = torch.ones(1, 1, 1, 1), torch.full((1, 1), 3.0)
    compiled = torch.compile(lambda x: affine_relu(x, factors, factors), backend="eager", fullgraph=True)
    compiled(x)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(compiled(forward_ad.make_dual(x, x))).tangent
    assert tangent.item() == 3


@each(CONSTANT)
def test_bytes_and_indices_are_constants(subject):
    tensors = subject.make(subject.small)
    right = subject.call(*tensors, backend=None)

    def weighted(first: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
        y = subject.call(first, *others, backend=None)
        return first.sum() + 3 * y.float().sum(), y

    slopes, y = torch.func.grad(weighted, has_aux=True)(*tensors)
    assert torch.equal(slopes, torch.ones_like(slopes))
    assert y.dtype == right.dtype and (y.int() - right.int()).abs().max() <= (subject.kind == "bytes")


@each(REFUSED)
def test_a_kernel_for_inference_is_refused_in_a_sentence(subject):
    tensors = subject.make(subject.small)
    sentence = "is for inference only and has no derivative; detach its arguments.$"

    def call(first: Tensor) -> Tensor:
        return subject.call(first, *tensors[1:], backend=None).float()

    with pytest.raises(DerivativeError, match=sentence):
        torch.func.jvp(call, (tensors[0],), (tensors[0],))
    with pytest.raises(DerivativeError, match=sentence):
        torch.func.grad(lambda x: call(x).sum())(tensors[0])
    with forward_ad.dual_level(), pytest.raises(DerivativeError, match=sentence):
        call(forward_ad.make_dual(tensors[0], tensors[0]))


def test_the_tangent_of_a_factor_of_three_is_three():
    x, one = torch.ones(1, 1, 1, 1), torch.ones(1, 1)
    assert torch.func.jvp(lambda x: affine_relu(x, 3 * one, 0 * one), (x,), (x,))[1].item() == 3


def test_transformed_weights_and_what_they_convolve_are_refused():
    weight, x = torch.ones(2, 3, 3, 3), torch.ones(1, 3, 4, 4)
    matrices = winograd_weight(weight)
    with pytest.raises(DerivativeError, match=r"^winograd_weight is for inference only and has no derivative; detach"):
        torch.func.jvp(winograd_weight, (weight,), (weight,))
    with pytest.raises(DerivativeError, match=r"^winograd_conv is for inference only and has no derivative; detach"):
        torch.func.jvp(lambda x: winograd_conv(x, matrices, 2), (x,), (x,))


def test_a_dual_number_within_another_transform_keeps_its_tangent():
    x, one, three = torch.ones(1, 1, 1, 1), torch.ones(1, 1), torch.full((1, 1), 3.0)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x[None], x[None])
        y = torch.vmap(lambda x: affine_relu(x, three, one))(dual)
        assert forward_ad.unpack_dual(y).tangent.item() == 3
