"""A loaded rearranger: seeds, files and arrays, in any batch; its exported graphs compute the same."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zellige.engine.library import load
from zellige.engine.systems.rearranger.graphs import GRAPHS
from zellige.engine.systems.rearranger.model import RearrangerModel
from zellige.errors import DeviceError, ShapeError, TaskError

from ..stylegan2.tiny_stylegan2 import written as written_generator
from .tiny_rearranger import config, written


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("rearranger") / "tiny.safetensors")


@pytest.fixture(scope="module")
def model(path: Path) -> RearrangerModel:
    return load(path, "cpu", "fp32")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_image_is_the_same_in_any_batch(path: Path, precision: str) -> None:
    some = load(path, "cpu", precision)
    names = [f"seed:3:{k}" for k in range(10)]
    images = some.rearrange(names, "seed:5")
    assert images.shape == (10, 16, 16, 3)
    assert np.array_equal(np.concatenate([some.rearrange(name, "seed:5") for name in names]), images)
    masks = some.rearrange("seed:3", names)
    assert np.array_equal(some.rearrange(["seed:3"] * 2, names[1:3]), masks[1:3])


def test_a_mask_s_picture_means_what_its_seed_means(model: RearrangerModel, tmp_path: Path) -> None:
    painted = model.proxy(["seed:5", "seed:6"])
    wanted = model.rearrange("seed:3", ["seed:5", "seed:6"])
    assert painted.shape == (2, 16, 16, 3) and np.array_equal(model.rearrange("seed:3", painted), wanted)
    Image.fromarray(painted[0]).save(tmp_path / "mask.png")
    assert np.array_equal(model.rearrange("seed:3", str(tmp_path / "mask.png")), wanted[:1])


def test_seeds_are_the_generator_s_images(model: RearrangerModel, tmp_path: Path) -> None:
    alone = load(written_generator(tmp_path / "base.safetensors"), "cpu", "fp32")
    assert np.array_equal(model.project(["seed:4", "seed:4:1"]), alone.generate(2, seed=4))
    assert np.array_equal(model.project("seed:4", psi=0.5), alone.generate(1, seed=4, psi=0.5))


def test_an_inverted_image_comes_near_and_does_not_depend_on_others(model: RearrangerModel) -> None:
    images = model.project(["seed:4", "seed:9"])
    again = model.project(images, steps=60)
    far, other = (np.abs(again[0].astype(int) - image).mean() for image in (images[0], images[1]))
    assert far < 0.5 * other
    assert np.array_equal(model.project(images[1], steps=60)[0].shape, again[1].shape)
    moved = model.rearrange(images[0], images[1], read="image", steps=5)
    assert moved.shape == (1, 16, 16, 3)


def test_numbers_that_do_not_go_together_are_refused(model: RearrangerModel) -> None:
    with pytest.raises(ShapeError, match="2 features do not go with 3 masks; give as many, or one of either"):
        model.rearrange(["seed:1", "seed:2"], ["seed:1", "seed:2", "seed:3"])
    with pytest.raises(TaskError, match="as proxy or image, not as 'sketch'"):
        model.rearrange("seed:1", "seed:2", read="sketch")


def test_other_runtimes_run_exported_files(path: Path) -> None:
    with pytest.raises(DeviceError, match="zellige export --task rearrange"):
        load(path, "cpu", "fp32", runtime="onnx")


@pytest.mark.parametrize("task", ["rearrange", "proxy"])
@pytest.mark.parametrize("flavour", ["portable", "fused"])
def test_every_graph_is_exported_for_any_batch(path: Path, tmp_path: Path, task: str, flavour: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from zellige.export.onnx import export_onnx

    export_onnx(path, tmp_path / "file.onnx", task=task, flavour=flavour)
    if flavour == "portable":
        inputs = {name: rows.numpy() for name, rows in GRAPHS[task].example(config(), 5).items()}
        session = onnxruntime.InferenceSession(tmp_path / "file.onnx")
        whole = session.run(None, inputs)[0]
        first = session.run(None, {name: rows[:1] for name, rows in inputs.items()})[0]
        assert len(whole) == 5 and np.abs(whole[:1].astype(int) - first).max() <= (task == "rearrange")
    with pytest.raises(TaskError, match="cannot be drawn from a seed"):
        load(tmp_path / "file.onnx", "cpu")
