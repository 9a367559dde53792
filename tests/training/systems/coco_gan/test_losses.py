import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zellige.training.systems.coco_gan.losses import diversity_shortfall, pair_distance


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestDiversity:
    def test_distance_is_taken_within_neighbouring_pairs(self) -> None:
        values = torch.tensor([0.0, 1.0, 10.0, 13.0, 5.0, 5.0])
        images = values[:, None, None, None].expand(6, 3, 2, 2)
        assert pair_distance(images).item() == pytest.approx((1 + 3 + 0) / 3)

    def test_distance_is_a_mean_over_pixels(self) -> None:
        images = normal(4, 3, 5, 7)
        expected = ((images[0] - images[1]).abs().mean() + (images[2] - images[3]).abs().mean()) / 2
        torch.testing.assert_close(pair_distance(images), expected)

    @given(share=st.floats(0, 3), target=st.floats(0.1, 2))
    def test_the_shortfall_is_what_is_missing_to_the_target(self, share: float, target: float) -> None:
        images = torch.tensor([0.0, 1.0], dtype=torch.float64)[:, None, None, None].expand(2, 3, 4, 4)
        found = diversity_shortfall(images * share * 0.7, 0.7, target).item()
        assert found == pytest.approx(max(0, target - share), abs=1e-9)

    def test_a_generator_as_varied_as_the_data_is_left_alone(self) -> None:
        real = normal(6, 3, 4, 4)
        fake = (1.01 * real).requires_grad_()
        loss = diversity_shortfall(fake, pair_distance(real), 1.0)
        loss.backward()
        assert loss.item() == 0 and fake.grad is not None and not fake.grad.any()

    def test_a_collapsing_generator_is_pushed_apart(self) -> None:
        real = normal(6, 3, 4, 4)
        fake = (0.5 * real).requires_grad_()
        diversity_shortfall(fake, pair_distance(real), 1.0).backward()
        assert fake.grad is not None
        moved = fake.detach() - 0.1 * fake.grad
        assert pair_distance(moved) > pair_distance(fake.detach())
