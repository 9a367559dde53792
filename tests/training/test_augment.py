"""Random changes that a discriminator sees are what they say, and let gradients through."""

import pytest
import torch

from zellige.training.augment import augmented

KINDS = ["colour", "translation", "cutout"]


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def drawn(x: torch.Tensor, *kinds: str, seed: int = 0) -> torch.Tensor:
    return augmented(x, kinds, torch.Generator().manual_seed(seed))


def test_nothing_changes_without_a_kind() -> None:
    x = images(2, 3, 8, 8)
    random = torch.Generator().manual_seed(0)
    before = random.get_state()
    assert augmented(x, (), random) is x
    assert torch.equal(random.get_state(), before)


@pytest.mark.parametrize("kind", KINDS)
def test_shape_and_draws(kind: str) -> None:
    x = images(16, 3, 12, 20)
    y = drawn(x, kind)
    assert y.shape == x.shape
    assert torch.equal(y, drawn(x, kind))
    assert not torch.equal(y, drawn(x, kind, seed=1))
    same = x[:1].expand(16, -1, -1, -1)  # each image is changed by itself
    assert len({tuple(row.tolist()) for row in drawn(same, kind).flatten(1)}) > 4


def test_the_order_of_the_kinds_means_nothing() -> None:
    x = images(4, 3, 16, 16)
    assert torch.equal(drawn(x, *KINDS), drawn(x, *KINDS[::-1]))


def test_a_translated_image_is_the_image_moved() -> None:
    x = images(64, 3, 16, 24)
    y = drawn(x, "translation")
    padded = torch.nn.functional.pad(x, (3, 3, 2, 2))
    found = set()
    for before, after in zip(padded, y, strict=True):
        places = [
            (down, across)
            for down in range(5)
            for across in range(7)
            if torch.equal(before[:, down : down + 16, across : across + 24], after)
        ]
        assert len(places) == 1
        found.add(places[0])
    assert {down for down, _ in found} == set(range(5))
    assert {across for _, across in found} == set(range(7))


def test_a_cut_is_a_square_of_half_the_sides_that_may_leave_the_image() -> None:
    x = torch.ones(256, 3, 16, 16)
    y = drawn(x, "cutout")
    assert set(y.unique().tolist()) == {0.0, 1.0}
    gone = (y == 0).all(1)
    assert torch.equal(gone, (y == 0).any(1))  # in all channels
    heights, widths = gone.any(2).sum(1), gone.any(1).sum(1)
    assert torch.equal(gone.sum((1, 2)), heights * widths)
    assert int(heights.max()) == int(widths.max()) == 8
    assert int(heights.min()) >= 4


def test_colours_move_within_their_bounds() -> None:
    grey = torch.full((512, 3, 4, 4), 0.25)
    moved = drawn(grey, "colour") - grey  # brightness alone, since grey has no saturation and no contrast
    assert float(moved.amax((1, 2, 3)).sub(moved.amin((1, 2, 3))).max()) < 1e-6
    assert -0.5 <= float(moved.min()) < -0.45 and 0.45 < float(moved.max()) <= 0.5
    flat = torch.tensor([0.5, 0.0, -0.5]).view(1, 3, 1, 1).expand(512, 3, 4, 4)
    spread = drawn(flat, "colour")
    ratio = (spread[:, 0] - spread[:, 2])[:, 0, 0]  # saturation times contrast: 0 to 2 times 0.5 to 1.5
    assert float(ratio.min()) < 0.1 and 2.3 < float(ratio.max()) <= 3.0
    assert torch.allclose(spread.mean((1, 2, 3), keepdim=True) + 0 * spread, spread.mean(1, keepdim=True), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_pass(kind: str) -> None:
    x = images(4, 3, 16, 16).requires_grad_()
    drawn(x, kind).square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all() and x.grad.abs().sum() > 0
