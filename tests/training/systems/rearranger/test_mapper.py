"""The mapper learns masks of conditions, the segmenter classes of one painted image, and a run goes on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from zellige.engine.checkpoint.file import write_checkpoint
from zellige.engine.library import load
from zellige.engine.systems.rearranger.config import MapperConfig, RearrangerConfig
from zellige.engine.systems.rearranger.masks import fit_centroids
from zellige.engine.systems.rearranger.networks import RearrangerNetworks
from zellige.errors import TrainingError
from zellige.training.systems.rearranger.mapper_recipe import MapperRecipe
from zellige.training.systems.rearranger.mapper_training import MapperTraining
from zellige.training.systems.rearranger.segmenter import fit_segmenter

from ...resuming import the_same_after_a_kill
from .test_training import BATCH, MODEL, Noise

MAPPER = MapperConfig(channels=(12, 8), hidden=6)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    generator = {"channels": (24, 16, 16), "z_dim": 16, "w_dim": 12, "mapping_layers": 2}
    config = RearrangerConfig.model_validate(MODEL | {"generator": generator})
    made = RearrangerNetworks(config)
    with torch.no_grad():
        styles = made.generator.styles(made.generator.map(torch.randn(8, 16)))
        made.centroids.copy_(fit_centroids([made.source(styles).features.map], config))
    path = tmp_path_factory.mktemp("base") / "rearranger.safetensors"
    tensors = {f"networks.{name}": tensor for name, tensor in made.state_dict().items()}
    write_checkpoint(path, tensors, system="rearranger", config=config.model_dump(mode="json"))
    return path


@pytest.fixture
def painted(tmp_path: Path) -> str:
    mask = np.full((16, 16, 3), 255, np.uint8)
    mask[6:] = 0
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return f"seed:3={tmp_path / 'mask.png'}"


def recipe(base: Path, **options: Any) -> MapperRecipe:
    return MapperRecipe(
        **{"base": str(base), "model": MAPPER, "batch": 2, "steps": 100, "segmenter_steps": 5} | options
    )


def run(base: Path, **options: Any) -> MapperTraining:
    return recipe(base, **options).start(torch.device("cpu"), 0)


@pytest.mark.parametrize("kind", ["labels", "edges"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_second_phase_moves_d_too(base: Path, painted: str, kind: str, precision: str) -> None:
    model = MAPPER.model_copy(update={"kind": kind})
    training = run(base, model=model, labelled=(painted,), precision=precision)
    for progress, moving in ((0.0, {"mapper", "average"}), (0.95, {"mapper", "average", "critic"})):
        before = {name: [p.detach().clone() for p in net.parameters()] for name, net in training.modules().items()}
        metrics = training.step(BATCH, progress)
        assert all(torch.isfinite(value) for value in metrics.values())
        moved = {
            name for name, network in training.modules().items()
            if any(not torch.equal(a, b) for a, b in zip(before[name], network.parameters(), strict=True))
        }  # fmt: skip
        assert moved == moving


def test_a_mapper_learns_the_masks_of_edges(base: Path) -> None:
    training = run(base, model=MAPPER.model_copy(update={"kind": "edges"}), batch=4, lr=0.01)
    losses = [float(training.step((BATCH[0].repeat(2, 1, 1, 1),), 0.0)["reconstruction"]) for _ in range(80)]
    assert np.mean(losses[-5:]) < 0.95 * np.mean(losses[:5])


def test_classes_need_a_painted_image(base: Path, painted: str) -> None:
    with pytest.raises(TrainingError, match="learnt from painted images; name one with --set labelled"):
        run(base)
    with pytest.raises(TrainingError, match="names no image of the generator and its painting; write seed:7=mask.png"):
        run(base, labelled=(painted.partition("=")[2] + "=" + painted.partition("=")[2],))


def test_another_base_is_refused() -> None:
    with pytest.raises(TrainingError, match="holds a coco-gan model; a mapper needs a rearranger as its base"):
        MapperRecipe(base="planet").start(torch.device("cpu"), 0)


def test_a_segmenter_learns_one_painted_image() -> None:
    torch.manual_seed(0)
    maps = [torch.randn(1, 8, side, side) for side in (4, 8, 16)]
    labels = (torch.nn.functional.interpolate(maps[1][:, :1], (16, 16), mode="bilinear")[:, 0] > 0).long()
    made = fit_segmenter(maps, labels, 2, 60)
    assert float((made(maps).argmax(1) == labels).float().mean()) > 0.95


def test_a_killed_run_goes_on_to_the_same_weights(base: Path, tmp_path: Path) -> None:
    settings = recipe(
        base, model=MAPPER.model_copy(update={"kind": "edges"}), steps=6, checkpoint_every=3, sample_every=3,
        plain_until=0.5, r1_every=2,
    )  # fmt: skip
    model = load(the_same_after_a_kill(settings, Noise, tmp_path, images=5 * 2), "cpu", "fp32")
    sketch = np.zeros((16, 16, 3), np.uint8)
    assert model.rearrange("seed:0", sketch, read="sketch").shape == (1, 16, 16, 3)
    assert np.array_equal(model.project("seed:0"), load(base, "cpu", "fp32").project("seed:0"))
