"""A loaded rearranger: seeds, files and arrays, in any batch; its exported graphs compute the same."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zellige.engine.library import load
from zellige.engine.systems.rearranger.graphs import GRAPHS
from zellige.engine.systems.rearranger.model import RearrangerModel
from zellige.errors import DataError, DeviceError, ShapeError, TaskError

from ..stylegan2.tiny_stylegan2 import written as written_generator
from .tiny_rearranger import MAPPER, config, written


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
    with pytest.raises(TaskError, match="not as 'music'"):
        model.rearrange("seed:1", "seed:2", read="music")
    with pytest.raises(TaskError, match="sketch needs a mapper of edges, and tiny has none; read masks as proxy"):
        model.rearrange("seed:1", "seed:2", read="sketch")


def test_other_runtimes_run_exported_files(path: Path) -> None:
    with pytest.raises(DeviceError, match="zellige export --task rearrange"):
        load(path, "cpu", "fp32", runtime="onnx")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_mapper_reads_painted_classes(tmp_path: Path, precision: str) -> None:
    model = load(written(tmp_path / "painted.safetensors", mapper=MAPPER), "cpu", precision)
    painted = np.full((31, 16, 3), 255, np.uint8)
    painted[10:] = (255, 0, 0)
    made = model.rearrange("seed:3", [painted, painted[::-1].copy()], read="labels")
    assert made.shape == (2, 16, 16, 3) and (made[0] != made[1]).any()
    assert np.array_equal(model.rearrange("seed:3", painted, read="labels")[0], made[0])
    painted[3, 3] = 7
    with pytest.raises(
        DataError, match="the colour #070707, which is no class's; the classes are ground #ffffff, thing"
    ):
        model.rearrange("seed:3", painted, read="labels")
    with pytest.raises(TaskError, match="edges needs a mapper of edges, and painted has one of labels"):
        model.rearrange("seed:3", painted, read="edges")


def test_a_mapper_reads_lines_on_any_paper_and_edges_of_images(tmp_path: Path) -> None:
    model = load(written(tmp_path / "drawn.safetensors", mapper=MAPPER | {"kind": "edges"}), "cpu", "fp32")
    lines = np.zeros((16, 16, 3), np.uint8)
    lines[4, 2:13] = lines[4:12, 2] = 255
    white, black = (model.rearrange("seed:3", drawn, read="sketch") for drawn in (lines, 255 - lines))
    assert np.array_equal(white, black)
    disc = np.zeros((16, 16, 3), np.uint8)
    disc[4:12, 4:12] = 200
    assert (model.rearrange("seed:3", disc, read="edges") != white).any()


@pytest.mark.parametrize("kind", ["labels", "edges"])
def test_a_mapper_is_exported(tmp_path: Path, kind: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from zellige.export.onnx import export_onnx

    path = written(tmp_path / "mapped.safetensors", mapper=MAPPER | {"kind": kind})
    export_onnx(path, tmp_path / "map.onnx", task="map")
    inputs = GRAPHS["map"].example(config(mapper=MAPPER | {"kind": kind}), 3)
    (masks,) = onnxruntime.InferenceSession(tmp_path / "map.onnx").run(None, {k: v.numpy() for k, v in inputs.items()})
    assert masks.shape == (3, 8, 8) and masks.dtype == np.int64 and masks.max() < 5


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
