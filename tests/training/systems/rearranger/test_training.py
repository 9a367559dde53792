"""A step of the rearranger moves what it should, and a run goes on as if never stopped."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zellige.engine.checkpoint.file import read_header, read_tensors
from zellige.engine.library import load
from zellige.errors import TrainingError
from zellige.training.systems.rearranger.losses import masked, reconstruction
from zellige.training.systems.rearranger.recipe import RearrangerRecipe
from zellige.training.systems.rearranger.training import RearrangerTraining

from ...resuming import the_same_after_a_kill

BATCH = (torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)),)
MODEL = {"split": 8, "clusters": 5, "width": 16, "key_width": 8, "depth": 1, "generator": {"channels": (24, 16, 16)}}


class Noise:
    """Pictures without files."""

    resolution, cyclic, licence = (16, 16), (False, False), "none"
    listings: dict[str, Any] = {}  # noqa: RUF012

    def image(self, index: int) -> np.ndarray:
        return np.random.default_rng(index).integers(0, 256, (16, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from zellige.engine.checkpoint.file import write_checkpoint
    from zellige.engine.systems.stylegan2.config import StyleGan2Config
    from zellige.engine.systems.stylegan2.discriminator import Discriminator
    from zellige.engine.systems.stylegan2.generator import Generator
    from zellige.training.systems.stylegan2.training import kept_tensors

    torch.manual_seed(0)
    config = StyleGan2Config(channels=(24, 16, 16), z_dim=16, w_dim=12, mapping_layers=2)
    path = tmp_path_factory.mktemp("base") / "base.safetensors"
    tensors = kept_tensors({"generator": Generator(config), "discriminator": Discriminator(config)}, False)
    write_checkpoint(path, tensors, system="stylegan2", config=config.model_dump(mode="json"))
    return path


def recipe(base: Path, **options: Any) -> RearrangerRecipe:
    return RearrangerRecipe(**{"base": str(base), "model": MODEL, "batch": 2, "steps": 100, "samples": 8} | options)


def run(base: Path, **options: Any) -> RearrangerTraining:
    return recipe(base, **options).start(torch.device("cpu"), 0)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_moves_rearranger_and_discriminator_and_nothing_else(base: Path, precision: str) -> None:
    training = run(base, precision=precision)
    frozen = [tensor.clone() for tensor in training.networks.generator.state_dict().values()]
    before = {name: [p.detach().clone() for p in net.parameters()] for name, net in training.modules().items()}
    metrics = training.step(BATCH, 0.0)
    assert all(torch.isfinite(value) for value in metrics.values()) and "r1" in metrics
    for name, network in training.modules().items():
        assert any(not torch.equal(a, b) for a, b in zip(before[name], network.parameters(), strict=True)), name
    after = training.networks.generator.state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(frozen, after, strict=True))


def test_d_judges_rarely_at_first_and_always_later(base: Path) -> None:
    training = run(base, rare=5, rare_until=0.5)
    judged = ["adversarial" in training.step(BATCH, k / 100) for k in (0, 1, 4, 5, 49, 50, 51)]
    assert judged == [True, False, False, True, False, True, True]
    assert "adversarial" not in run(base, adversarial=0.0).step(BATCH, 0.9)


def test_the_base_s_discriminator_goes_on(base: Path) -> None:
    training, header = run(base), read_header(base)
    stored = read_tensors(header, None, "discriminator.")
    assert all(torch.equal(stored[name], tensor) for name, tensor in training.judge.critic.state_dict().items())


def test_another_base_is_refused() -> None:
    with pytest.raises(TrainingError, match="holds a coco-gan model; a rearranger needs a stylegan2 as its base"):
        RearrangerRecipe(base="planet").start(torch.device("cpu"), 0)


def test_right_labels_cost_nothing_and_wrong_ones_do() -> None:
    centroids = torch.eye(4)
    mask = torch.randint(4, (2, 3, 3), generator=torch.Generator().manual_seed(0))
    right = torch.nn.functional.one_hot(mask, 4).permute(0, 3, 1, 2).float() * 5
    assert float(masked(right, mask, centroids, 20.0)) < 1e-6
    assert float(masked(right.roll(1, 1), mask, centroids, 20.0)) > 10


def test_reconstruction_is_in_deviations_of_each_channel() -> None:
    wanted = torch.randn(2, 3, 4, 4)
    deviation = torch.tensor([1.0, 2.0, 4.0])
    made = wanted + deviation[:, None, None]
    image = torch.randn(2, 3, 8, 8)
    terms = reconstruction((made, wanted), (image + 0.5, image), deviation)
    assert [float(term) for term in terms] == pytest.approx([1.0, 0.5], rel=1e-4)


def test_a_killed_run_goes_on_to_the_same_weights(base: Path, tmp_path: Path) -> None:
    settings = recipe(base, steps=6, checkpoint_every=3, sample_every=3, rare=2, r1_every=2)
    model = load(the_same_after_a_kill(settings, Noise, tmp_path, images=5 * 2), "cpu", "fp32")
    assert model.rearrange("seed:0", "seed:1").shape == (1, 16, 16, 3)
