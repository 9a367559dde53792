from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zellige.training.losses import Adversarial, critic_loss, generator_loss, gradient_penalty

SHAPE = (5, 3, 4, 6)


def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """A critic whose gradient is `weight` everywhere."""
    return lambda x: (x * weight).sum(dim=(1, 2, 3))


class TestAdversarial:
    @pytest.mark.parametrize(
        ("kind", "real", "fake", "loss"),
        [
            ("wasserstein", [1.0, 3.0], [-2.0, 4.0], -1),
            ("wasserstein", [0.0], [0.0], 0),
            ("hinge", [2.0, 5.0], [-1.0, -3.0], 0),
            ("hinge", [0.0, 0.0], [0.0, 0.0], 2),
            ("hinge", [0.5, -1.0], [-0.5, 3.0], (0.5 + 2) / 2 + (0.5 + 4) / 2),
        ],
    )
    def test_values_of_the_critics_loss(
        self, kind: Adversarial, real: list[float], fake: list[float], loss: float
    ) -> None:
        assert critic_loss(kind, torch.tensor(real), torch.tensor(fake)).item() == pytest.approx(loss)

    def test_the_generator_wants_high_values(self) -> None:
        assert generator_loss(torch.tensor([1.0, 2.0, 6.0])).item() == -3

    @given(values=st.lists(st.floats(-10, 10), min_size=1, max_size=8), shift=st.floats(-5, 5))
    def test_wasserstein_does_not_see_a_shift_of_all_values(self, values: list[float], shift: float) -> None:
        real, fake = torch.tensor(values, dtype=torch.float64), torch.tensor(values[::-1], dtype=torch.float64) / 2
        moved = critic_loss("wasserstein", real + shift, fake + shift)
        torch.testing.assert_close(moved, critic_loss("wasserstein", real, fake), rtol=1e-9, atol=1e-9)

    def test_hinge_teaches_nothing_beyond_its_margin(self) -> None:
        real, fake = torch.tensor([2.0, 0.0], requires_grad=True), torch.tensor([-2.0, 0.0], requires_grad=True)
        critic_loss("hinge", real, fake).backward()
        assert real.grad is not None and real.grad.tolist() == [0, -0.5]
        assert fake.grad is not None and fake.grad.tolist() == [0, 0.5]


class TestGradientPenalty:
    @pytest.mark.parametrize("slope", [0.0, 0.25, 1.0, 3.0])
    def test_of_a_linear_critic_it_is_the_squared_distance_of_the_slope_from_one(self, slope: float) -> None:
        weight = normal(*SHAPE[1:])
        weight *= slope / weight.norm()
        penalty = gradient_penalty(linear(weight), normal(*SHAPE), normal(*SHAPE, seed=1), random())
        assert penalty.item() == pytest.approx((slope - 1) ** 2, abs=1e-5)

    def test_every_sample_has_a_slope_of_its_own(self) -> None:
        slopes = torch.tensor([0.0, 0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
        weight = normal(*SHAPE)
        weight *= (slopes / weight.flatten(1).norm(dim=1))[:, None, None, None]
        penalty = gradient_penalty(linear(weight), normal(*SHAPE), normal(*SHAPE, seed=1), random())
        assert penalty.item() == pytest.approx((slopes - 1).square().mean().item(), abs=1e-5)

    def test_with_quirks_every_column_and_channel_has_a_slope_over_the_height(self) -> None:
        weight = normal(*SHAPE)
        expected = ((weight**2).sum(dim=2).sqrt() - 1).square().mean()
        penalty = gradient_penalty(linear(weight), normal(*SHAPE), normal(*SHAPE, seed=1), random(), quirks=True)
        torch.testing.assert_close(penalty, expected)

    def test_with_quirks_the_whole_patch_is_pulled_to_the_root_of_its_columns_and_channels(self) -> None:
        weight = normal(*SHAPE)
        weight /= weight.norm(dim=2, keepdim=True)
        assert weight.flatten(1).norm(dim=1).tolist() == pytest.approx([(3 * 6) ** 0.5] * 5)
        penalty = gradient_penalty(linear(weight), normal(*SHAPE), normal(*SHAPE, seed=1), random(), quirks=True)
        assert penalty.item() == pytest.approx(0, abs=1e-12)

    @pytest.mark.parametrize("quirks", [False, True])
    def test_the_critic_is_asked_between_real_and_fake(self, quirks: bool) -> None:
        asked: list[Tensor] = []

        def critic(x: Tensor) -> Tensor:
            asked.append(x.detach())
            return x.square().sum(dim=(1, 2, 3))

        gradient_penalty(critic, torch.zeros(SHAPE), torch.ones(SHAPE), random(), quirks=quirks)
        (eps,) = asked
        assert eps.min() >= 0 and eps.max() <= 1
        assert len(eps.unique()) == (eps.numel() if quirks else len(eps))
        assert quirks or all(len(sample.unique()) == 1 for sample in eps)

    @pytest.mark.parametrize("quirks", [False, True])
    def test_it_can_be_differentiated(self, quirks: bool) -> None:
        weight = normal(*SHAPE[1:]).requires_grad_()
        real, fake = normal(*SHAPE), normal(*SHAPE, seed=1)
        gradient_penalty(linear(weight), real, fake, random(), quirks=quirks).backward()
        again = weight.detach().clone().requires_grad_()
        norm = again.square().sum(dim=1).sqrt() if quirks else again.norm()
        (norm - 1).square().mean().backward()
        assert weight.grad is not None and again.grad is not None
        torch.testing.assert_close(weight.grad, again.grad)

    def test_a_flat_critic_has_a_finite_gradient(self) -> None:
        weight = torch.zeros(SHAPE[1:], requires_grad=True)
        gradient_penalty(linear(weight), torch.zeros(SHAPE), torch.ones(SHAPE), random()).backward()
        assert weight.grad is not None and weight.grad.isfinite().all()

    def test_neither_images_receive_a_gradient(self) -> None:
        real, fake = normal(*SHAPE).requires_grad_(), normal(*SHAPE, seed=1).requires_grad_()
        weight = normal(*SHAPE[1:]).requires_grad_()
        gradient_penalty(lambda x: linear(weight)(x * x), real, fake, random()).backward()
        assert real.grad is None and fake.grad is None
