"""A step of StyleGAN2 moves both networks; regularisations come when they should; a run goes on as if never stopped."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zellige.engine.library import load
from zellige.engine.systems.stylegan2.config import StyleGan2Config
from zellige.training.loop import train
from zellige.training.systems.stylegan2.evaluate import evaluate
from zellige.training.systems.stylegan2.losses import gradient_square, path_lengths
from zellige.training.systems.stylegan2.recipe import StyleGan2Recipe
from zellige.training.systems.stylegan2.training import StyleGan2Training

from ...resuming import the_same_after_a_kill

MODEL = StyleGan2Config(channels=(8, 8, 4), z_dim=6, w_dim=6, mapping_layers=2)
BATCH = (torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)),)


def recipe(**options: Any) -> StyleGan2Recipe:
    return StyleGan2Recipe(**{"model": MODEL, "batch": 4, "steps": 100} | options)


def run(**options: Any) -> StyleGan2Training:
    return recipe(**options).start(torch.device("cpu"), 0)


class Noise:
    """Pictures without files."""

    resolution, cyclic, licence = (16, 16), (False, False), "none"
    listings: dict[str, Any] = {}  # noqa: RUF012

    def image(self, index: int) -> np.ndarray:
        return np.random.default_rng(index).integers(0, 256, (16, 16, 3), np.uint8)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_moves_both_networks_and_the_average_follows(precision: str) -> None:
    training = run(precision=precision)
    before = {name: [p.detach().clone() for p in net.parameters()] for name, net in training.modules().items()}
    metrics = training.step(BATCH, 0.01)
    assert all(torch.isfinite(value) for value in metrics.values())
    for name, network in training.modules().items():
        moved = [not torch.equal(a, b) for a, b in zip(before[name], network.parameters(), strict=True)]
        assert sum(moved) > 0.8 * len(moved), name
    assert not torch.equal(training.average.w_avg, torch.zeros(6))


def test_regularisations_come_every_so_many_steps() -> None:
    training = run(r1_every=4, path_every=2)
    found = [set(training.step(BATCH, k / 100)) & {"r1", "path_length"} for k in range(5)]
    assert found == [{"r1", "path_length"}, set(), {"path_length"}, set(), {"r1", "path_length"}]
    none = run(r1=0, path=0)
    assert not set(none.step(BATCH, 0)) & {"r1", "path_length"}


def test_lazy_regularisation_shrinks_rates_and_moments() -> None:
    group = run(r1_every=16, lr_critic=2e-3).optimisers["critic"].param_groups[0]
    assert group["lr"] == pytest.approx(2e-3 * 16 / 17) and group["betas"] == (0.0, pytest.approx(0.99 ** (16 / 17)))


def test_the_gradient_of_a_linear_critic_is_its_weights() -> None:
    weights = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(0))
    square = gradient_square(lambda x: (x * weights).sum((1, 2, 3)), torch.randn(5, 3, 2, 2))
    assert float(square) == pytest.approx(float(weights.square().sum()), rel=1e-5)


def test_path_lengths_of_a_linear_generator() -> None:
    styles = torch.randn(4, 3, 2, requires_grad=True)
    images = styles.sum((1, 2))[:, None, None, None].expand(-1, 3, 8, 8) * 2
    lengths = path_lengths(images, styles, torch.Generator().manual_seed(0))
    noise = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) / 8
    wanted = (2 * noise.sum((1, 2, 3))).abs() * math.sqrt(2)  # each of 2 entries of a layer has this slope
    torch.testing.assert_close(lengths, wanted)


def test_mixed_styles_change_at_a_layer() -> None:
    training = run(mixing=1.0)
    with torch.no_grad():
        styles = training._styles(64)
    same = (styles[:, 1:] == styles[:, :-1]).all(2)
    assert ((~same).sum(1) == 1).all() and (~same).any(0).all()
    with torch.no_grad():
        plain = run(mixing=0.0)._styles(4)
    assert (plain == plain[:, :1]).all()


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    settings = recipe(steps=6, checkpoint_every=3, sample_every=3, r1_every=2, path_every=2, augment=("translation",))
    model = load(the_same_after_a_kill(settings, Noise, tmp_path, images=5 * 4), "cpu", "fp32")
    assert model.generate(2).shape == (2, 16, 16, 3)


def test_evaluation_compares_with_held_out_pictures(tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    for k in range(30):
        Image.fromarray(Noise().image(k)).save(folder / f"{k}.png")
    report = train(recipe(steps=1), Noise(), tmp_path / "run", workers=0)
    found = evaluate(load(report["model"], "cpu", "fp32"), str(folder), 8, 0)
    assert found["sliced_wasserstein"]["mean"] > found["sliced_wasserstein_data"]["mean"] > 0
    assert 0 < found["nearest_data"] < 1 and found["diversity"] > 0
