"""The losses are the paper's equations, with the measure of L1 said."""

import math

import pytest
import torch
from torch import Tensor

from zellige.training.losses import logistic
from zellige.training.systems.key_patch.losses import appearance, composite, faded, norm, spatial

RANDOM = torch.Generator().manual_seed(0)
REAL = torch.rand(2, 3, 8, 8, generator=RANDOM) * 2 - 1
UNION = (torch.rand(2, 1, 8, 8, generator=RANDOM) > 0.6).float()


def test_appearance_is_0_where_patches_are_kept() -> None:
    elsewhere = torch.randn(2, 3, 8, 8, generator=RANDOM)
    kept = composite(REAL, elsewhere, UNION)
    assert appearance(kept, UNION, REAL, UNION, "image") == 0
    assert spatial(UNION, UNION, "image") == 0


def test_appearance_reaches_the_mask() -> None:
    mask = torch.full((2, 1, 8, 8), 0.5, requires_grad=True)
    appearance(REAL, mask, REAL, UNION, "image").backward()
    assert mask.grad is not None and mask.grad.abs().sum() > 0


@pytest.mark.parametrize(("kind", "factor"), [("batch", 2 * 3 * 64), ("image", 3 * 64), ("pixel", 3), ("element", 1)])
def test_measures_of_l1_differ_by_their_counts(kind: str, factor: int) -> None:
    difference = torch.randn(2, 3, 8, 8, generator=RANDOM)
    torch.testing.assert_close(norm(difference, kind), difference.abs().mean() * factor)  # type: ignore[arg-type]


def test_an_undecided_d_costs_ln_2_a_term() -> None:
    undecided: Tensor = torch.zeros(5)
    assert float(logistic(undecided, real=True)) == pytest.approx(math.log(2))
    assert float(logistic(undecided, real=False)) == pytest.approx(math.log(2))


def test_a_composite_is_one_image_inside_and_another_around() -> None:
    made = composite(torch.ones(1, 3, 8, 8), torch.zeros(1, 3, 8, 8), UNION[:1])
    assert torch.equal(made, UNION[:1].expand_as(made))


@pytest.mark.parametrize(("epoch", "weight"), [(1, 1e-2), (13, 1e-3), (25, 1e-4)])
def test_weights_fall_by_the_papers_schedule(epoch: int, weight: float) -> None:
    assert faded((1e-2, 1e-4), epoch, 25) == pytest.approx(weight)


def test_a_weight_of_0_leaves_a_loss_out() -> None:
    assert faded((0.0, 0.0), 3, 25) == 0
