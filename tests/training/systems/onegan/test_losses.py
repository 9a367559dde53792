import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zellige.errors import ShapeError
from zellige.training.systems.onegan.losses import (
    LEAST_LOG_VARIANCE,
    background_weight,
    embedding_norm,
    gaussian_nll,
    kl_to_standard_normal,
    mask_balance,
    mask_decisiveness,
    mask_regularizer,
    real_or_fake,
    weighted_l1,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shares(*parts: tuple[float, float]) -> Tensor:
    """A mask [1, 1, 8, 8] whose pixels have the given values, each for its share of the picture."""
    return torch.cat([torch.full((round(64 * share),), value) for share, value in parts]).reshape(1, 1, 8, 8).double()


CHECKED = [
    (shares((0.5, 1), (0.5, 0)), 0, 0, 0),
    (shares((1, 0.5)), 0, 1, 0.1),
    (shares((1, 0)), 0.5, 1, 0.6),
    (shares((1, 1)), 0.5, 1, 0.6),
    (shares((0.25, 1), (0.75, 0)), 0.25, 0.5, 0.3),
    (shares((0.5, 0.9), (0.5, 0.1)), 0, 0.2, 0.02),
]


class TestMasks:
    @pytest.mark.parametrize(("mask", "balance", "decisiveness", "total"), CHECKED)
    def test_values_of_the_specification(self, mask: Tensor, balance: float, decisiveness: float, total: float) -> None:
        assert mask_balance(mask).item() == pytest.approx(balance, abs=1e-7)
        assert mask_decisiveness(mask).item() == pytest.approx(decisiveness, abs=1e-7)
        assert mask_regularizer(mask).item() == pytest.approx(total, abs=1e-7)

    @given(share=st.integers(1, 63))
    def test_a_mask_of_the_share_that_is_asked_for_is_ideal(self, share: int) -> None:
        mask = (torch.arange(64.0) < share).double().view(1, 1, 8, 8)
        assert mask_regularizer(mask, share / 64).item() == pytest.approx(0, abs=1e-12)
        assert mask_regularizer(mask, (share + 1) / 64).item() > 0.01
        assert mask_regularizer(mask, (share - 1) / 64).item() > 0.01

    def test_every_mask_is_judged_by_itself(self) -> None:
        # Together an empty and a full mask would be balanced and decisive.
        masks = torch.cat([mask for mask, *_ in CHECKED])
        for loss, column in [(mask_balance, 1), (mask_decisiveness, 2), (mask_regularizer, 3)]:
            assert loss(masks).item() == pytest.approx(sum(float(row[column]) for row in CHECKED) / len(CHECKED))

    def test_an_undecided_mask_is_pushed_apart(self) -> None:
        undecided = shares((0.5, 0.6), (0.5, 0.4)).requires_grad_()
        mask_decisiveness(undecided).backward()
        assert undecided.grad is not None
        assert (undecided.grad[undecided > 0.5] < 0).all() and (undecided.grad[undecided < 0.5] > 0).all()

    def test_a_full_mask_is_pushed_down(self) -> None:
        full = shares((1, 0.9)).requires_grad_()
        mask_regularizer(full).backward()
        assert full.grad is not None and (full.grad > 0).all()


class TestEmbeddings:
    def test_norms_are_squared_summed_and_averaged_over_the_batch(self) -> None:
        shape, style = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[1.0, 2.0, 2.0], [1.0, 0.0, 0.0]])
        assert embedding_norm(shape, style).item() == pytest.approx((25 + 9 + 0 + 1) / 2)

    def test_the_gradient_points_to_the_origin(self) -> None:
        vector = normal(4, 5).requires_grad_()
        embedding_norm(vector).backward()
        assert vector.grad is not None
        torch.testing.assert_close(vector.grad, 2 * vector.detach() / 4)


class TestCodes:
    @pytest.mark.parametrize(
        ("mean", "variance", "divergence"),
        [(0, 1, 0), (1, 1, 0.5), (-2, 1, 2), (0, math.e, (math.e - 2) / 2), (0, 4, 1.5 - math.log(2))],
    )
    def test_values_of_the_divergence(self, mean: float, variance: float, divergence: float) -> None:
        codes = torch.full((2, 1), mean, dtype=torch.float64)
        found = kl_to_standard_normal(codes, torch.full((2, 1), math.log(variance), dtype=torch.float64))
        assert found.item() == pytest.approx(divergence, abs=1e-12)

    def test_the_divergence_is_that_of_the_distributions(self) -> None:
        mean, log_variance = normal(6, 7), normal(6, 7, seed=1)
        codes = torch.distributions.Normal(mean, (log_variance / 2).exp())
        standard = torch.distributions.Normal(torch.zeros_like(mean), 1.0)
        expected = torch.distributions.kl_divergence(codes, standard).sum(dim=1).mean()
        torch.testing.assert_close(kl_to_standard_normal(mean, log_variance), expected)

    def test_small_divergences_keep_their_digits(self) -> None:
        tiny = torch.full((1, 1), 1e-3)
        assert kl_to_standard_normal(torch.zeros(1, 1), tiny).item() == pytest.approx(2.5e-7, rel=1e-2)

    def test_the_likelihood_is_that_of_the_distribution(self) -> None:
        target, mean, log_variance = normal(6, 7), normal(6, 7, seed=1), normal(6, 7, seed=2)
        expected = -torch.distributions.Normal(mean, (log_variance / 2).exp()).log_prob(target).mean()
        torch.testing.assert_close(gaussian_nll(target, mean, log_variance), expected)

    def test_a_known_code_has_a_bounded_likelihood(self) -> None:
        code = normal(3, 4)
        log_variance = torch.full((3, 4), -100.0, dtype=torch.float64, requires_grad=True)
        loss = gaussian_nll(code, code, log_variance)
        assert loss.item() == pytest.approx(0.5 * (math.log(2 * math.pi) + LEAST_LOG_VARIANCE))
        loss.backward()
        assert log_variance.grad is not None and not log_variance.grad.any()


class TestRealOrFake:
    @pytest.mark.parametrize("shape", [(5, 1), (5, 1, 24, 24)])
    @pytest.mark.parametrize("real", [True, False])
    def test_it_is_the_cross_entropy_over_all_units(self, shape: tuple[int, ...], real: bool) -> None:
        logits = normal(*shape) * 3
        truth = torch.full_like(logits, float(real))
        expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)
        torch.testing.assert_close(real_or_fake(logits, real), expected)

    def test_an_undecided_discriminator_pays_one_bit(self) -> None:
        assert real_or_fake(torch.zeros(2, 1), True).item() == pytest.approx(math.log(2))

    @pytest.mark.parametrize("real", [True, False])
    def test_large_logits_stay_finite(self, real: bool) -> None:
        assert real_or_fake(torch.tensor([-1e4, 1e4]), real).item() == pytest.approx(5e3)


class TestWeightedL1:
    def test_even_weights_give_the_mean(self) -> None:
        first, second = normal(2, 3, 4, 5), normal(2, 3, 4, 5, seed=1)
        for weight in (1.0, 0.3):
            found = weighted_l1(first, second, torch.full((2, 1, 4, 5), weight, dtype=torch.float64))
            torch.testing.assert_close(found, (first - second).abs().mean())

    def test_pixels_count_by_their_weight(self) -> None:
        first = torch.tensor([1.0, 2.0, 8.0]).reshape(1, 1, 1, 3).expand(1, 3, 1, 3)
        weight = torch.tensor([1.0, 0.5, 0.0]).reshape(1, 1, 1, 3)
        assert weighted_l1(first, torch.zeros_like(first), weight).item() == pytest.approx((1 + 1) / 1.5)

    def test_no_weight_is_no_loss(self) -> None:
        image = normal(1, 3, 2, 2).requires_grad_()
        loss = weighted_l1(image, torch.zeros_like(image), torch.zeros(1, 1, 2, 2, dtype=torch.float64))
        loss.backward()
        assert loss.item() == 0 and image.grad is not None and not image.grad.any()

    def test_weights_receive_no_gradient(self) -> None:
        image, weight = normal(1, 3, 2, 2).requires_grad_(), torch.rand(1, 1, 2, 2).requires_grad_()
        weighted_l1(image, torch.zeros_like(image), weight).backward()
        assert weight.grad is None and image.grad is not None and image.grad.any()

    def test_other_weights_are_refused(self) -> None:
        with pytest.raises(ShapeError, match=r"for images \(2, 3, 4, 5\), so \(2, 1, 4, 5\); got \(2, 3, 4, 5\)"):
            weighted_l1(normal(2, 3, 4, 5), normal(2, 3, 4, 5), normal(2, 3, 4, 5))

    @given(mask=st.floats(0, 1))
    def test_the_background_is_where_the_mask_is_under_a_half(self, mask: float) -> None:
        found = background_weight(torch.full((1, 1, 1, 1), mask, dtype=torch.float64)).item()
        assert found == (1 - mask if mask < 0.5 else 0)
