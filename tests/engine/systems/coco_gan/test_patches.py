"""A loaded COCO-GAN beside its tasks: copies of it, modes of the host program, and values that no picture has."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zellige.engine.library import load
from zellige.engine.panorama.scene import Region
from zellige.engine.systems.coco_gan.config import CocoGanConfig
from zellige.engine.systems.coco_gan.generator import Generator
from zellige.engine.systems.coco_gan.graph_patches import GraphPatches
from zellige.engine.systems.coco_gan.patches import CocoGanPatches
from zellige.engine.systems.coco_gan.pictures import PatchPictures
from zellige.errors import ShapeError, ValuesError

from ...layers.modes import MODES

Model, ModelFile = Callable[..., Any], Callable[..., Path]
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["cylinder", "dense"])
def test_modes_of_the_host_change_no_byte(
    model: Model, model_file: ModelFile, tmp_path: Path, mode: str, kind: str
) -> None:
    loaded = model(kind)
    expected, width = loaded.generate(2, seed=1), 2 * loaded.size[1]
    loaded.panorama(tmp_path / "a.png", width, memory="128MiB")
    with MODES[mode]():
        assert np.array_equal(loaded.generate(2, seed=1), expected)
        loaded.panorama(tmp_path / "b.png", width, memory="128MiB")
        opened = load(model_file(kind), device="cpu", precision="fp32")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert np.array_equal(opened.generate(2, seed=1), expected)
    assert not any(tensor.is_inference() for tensor in opened.generator.state_dict().values())


def test_graphs_are_prepared_in_modes_of_their_own(model_file: ModelFile, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    loaded = load(model_file("cylinder"), device="cpu", precision="fp32", runtime="onnx")
    with torch.device("meta"):
        loaded.panorama(tmp_path / "a.png", 2 * loaded.size[1], memory="128MiB")
    loaded.panorama(tmp_path / "b.png", 2 * loaded.size[1], memory="128MiB")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda given: pickle.loads(pickle.dumps(given))],
    ids=["copy", "deep", "pickle"],
)
@pytest.mark.parametrize("kind", ["cylinder", "dense"])
def test_a_copy_makes_the_same_pictures(model: Model, kind: str, copied: Callable[[Any], Any]) -> None:
    loaded = model(kind)
    other, region = copied(loaded), Region(3, 5, 7, 50)
    assert np.array_equal(other.generate(2, seed=1), loaded.generate(2, seed=1))
    scene = loaded.scene(3 * loaded.size[1], seed=2)
    assert np.array_equal(other.render(pickle.loads(pickle.dumps(scene)), region), loaded.render(scene, region))


def test_a_deep_copy_has_weights_of_its_own(model: Model) -> None:
    loaded = model("cylinder")
    before, other = loaded.generate(1), copy.deepcopy(loaded)
    for parameter in other.generator.parameters():
        parameter.zero_()
    assert (other.generate(1) == 128).all() and np.array_equal(loaded.generate(1), before)


@pytest.mark.parametrize("latents", [[5.0], [-1.001], [NAN], [INF], [0.5, NAN]])
def test_latents_unlike_those_of_training_are_refused(model: Model, latents: list[float]) -> None:
    loaded = model("plane")
    given = np.zeros((2, loaded.config.latent))
    given[1, : len(latents)] = latents
    with pytest.raises(
        ValuesError, match=r"^latents must be within \[-1, 1\], as in training; those given (reach|hold)"
    ):
        loaded.from_latents(given)


def test_latents_are_taken_in_any_form(model: Model) -> None:
    loaded = model("plane")
    given = np.linspace(-1, 1, loaded.config.latent, dtype=np.float32)[None]
    made = loaded.from_latents(given)
    for form in (given.tolist(), torch.from_numpy(given).requires_grad_()):
        assert np.array_equal(loaded.from_latents(form), made)


@pytest.mark.parametrize("latents", ["0", [["a", "b"]], [[0.0], [0.0, 1.0]], [[1j]], None])
def test_latents_that_are_no_numbers_are_refused(model: Model, latents: object) -> None:
    with pytest.raises(ShapeError, match=r"^latents are real numbers, in an array, a tensor or nested lists; got"):
        model("plane").from_latents(latents)


def test_latents_may_be_rounded(model: Model) -> None:
    loaded = model("plane")
    loaded.from_latents(np.full((1, loaded.config.latent), np.float32(1) + np.float32(2e-7)))


@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize(
    "task",
    [
        lambda model, out: model.generate(1), lambda model, out: model.generate(1, as_="float"),
        lambda model, out: model.panorama(out), lambda model, out: model.interpolate_coordinates(0, 2, 2),
    ],
    ids=["generate", "floats", "panorama", "coordinates"],
)  # fmt: skip
def test_a_damaged_model_makes_no_pictures(model: Model, tmp_path: Path, value: float, task: Any) -> None:
    damaged = copy.deepcopy(model("cylinder"))
    damaged.generator.stem.weight[0, 0] = value
    with pytest.raises(ValuesError, match=r"^cylinder gives values that are no numbers; its weights are damaged"):
        task(damaged, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_patches_of_a_file_need_the_shapes_of_a_generator_alone() -> None:
    config = CocoGanConfig(
        topology="cylinder", rows=3, columns=4, patch=8, latent=6, width=4, dense=True, padding="none"
    )
    generator = Generator(config, spectral=False).eval().requires_grad_(False)
    with torch.device("meta"):
        shapes = Generator(config, spectral=False).eval().requires_grad_(False)
    graphs = GraphPatches(lambda *given: pytest.fail("a runtime was opened"), config, torch.device("cpu"))
    made, meant = (CocoGanPatches(network, graphs) for network in (shapes, generator))
    for name in ("side", "channels", "latent", "device", "dtype", "weights", "only", "inside", "graph"):
        assert getattr(made, name) == getattr(meant, name)
    for cells in ((), (1, 10), (12, 10)):
        assert made.live_bytes((3, 2), cells, 7) == meant.live_bytes((3, 2), cells, 7) > 0
    assert PatchPictures(shapes, "patches", graphs).device.type == "cpu"
