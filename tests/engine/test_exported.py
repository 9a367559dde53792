"""Exported files as models: what they make is what the checkpoint makes, and what they cannot do is said."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

import zellige
from zellige.engine.info import describe_model
from zellige.engine.library import load_checkpoint, load_task
from zellige.engine.systems.onegan.images import OneGanImages
from zellige.errors import CheckpointError, DeviceError, TaskError, UnknownModelError

for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package)

ModelFile = Callable[..., Path]


@pytest.fixture(scope="session")
def images_of_onegan(onegan_file: ModelFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(onegan_file(), tmp_path_factory, "generate", "image")


@pytest.fixture(scope="session")
def images_of_coco_gan(model_file: ModelFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(model_file("cylinder"), tmp_path_factory, "generate", "float")


@pytest.fixture(scope="session")
def patches(model_file: ModelFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(model_file("dense"), tmp_path_factory, "patches", "float")


def exported(model: Path, folders: pytest.TempPathFactory, task: str, output: Literal["image", "float"]) -> Path:
    from zellige.export.onnx import export_onnx

    path = folders.mktemp("exported") / f"{model.stem}.onnx"
    export_onnx(model, path, task=task, output=output, batches=(1,))
    return path


def furthest(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def edited(path: Path, folder: Path, **said: str | None) -> Path:
    """A copy that says other things of itself; None takes an entry away."""
    import onnx

    model = onnx.load(path)
    kept = {entry.key.removeprefix("zellige."): entry.value for entry in model.metadata_props} | said
    del model.metadata_props[:]
    for key, value in kept.items():
        if value is not None:
            model.metadata_props.add(key=f"zellige.{key}", value=value)
    copy = folder / "edited.onnx"
    copy.write_bytes(model.SerializeToString())
    return copy


def said_by(path: Path, key: str) -> str:
    import onnx

    return next(e.value for e in onnx.load(path, load_external_data=False).metadata_props if e.key == f"zellige.{key}")


class TestOneGan:
    def test_images_are_those_of_the_checkpoint(self, images_of_onegan: Path, onegan_file: ModelFile) -> None:
        model: Any = zellige.load(images_of_onegan, device="cpu")
        own: Any = zellige.load(onegan_file(), device="cpu", precision="fp32")
        assert (model.name, model.precision, model.size) == (images_of_onegan.stem, "fp32", own.size)
        for chosen in ({}, {"child": 6, "parent": 0, "background": 1}):
            images = own.generate(3, seed=2, **chosen)
            assert images.std() > 5 and furthest(model.generate(3, seed=2, **chosen), images) <= 1

    def test_bytes_become_floats_if_asked(self, images_of_onegan: Path) -> None:
        model: Any = zellige.load(images_of_onegan, device="cpu")
        model.warm([2])
        expected = model.generate(2).transpose(0, 3, 1, 2) / 127.5 - 1
        assert np.allclose(model.generate(2, as_="float").numpy(), expected, atol=1e-6)

    def test_verbs_that_choose_classes_take_such_files(self, images_of_onegan: Path) -> None:
        assert type(load_task("generate", images_of_onegan)) is OneGanImages


class TestCocoGan:
    def test_images_are_those_of_the_checkpoint(self, images_of_coco_gan: Path, model_file: ModelFile) -> None:
        model: Any = zellige.load(images_of_coco_gan, device="cpu")
        own: Any = zellige.load(model_file("cylinder"), device="cpu", precision="fp32")
        model.warm([2])
        images = own.generate(3, seed=1)
        assert images.std() > 5 and furthest(model.generate(3, seed=1), images) <= 1
        assert np.abs((model.generate(2, as_="float") - own.generate(2, as_="float")).numpy()).max() < 1e-4
        assert (model.precision, model.size) == ("fp32", own.size)

    def test_patches_make_whatever_pictures_the_checkpoint_makes(self, patches: Path, model_file: ModelFile) -> None:
        model = load_task("panorama", patches, "cpu")
        own = load_task("panorama", model_file("dense"), "cpu", "fp32")
        assert model.still_block == (1, 1) and own.still_block != (1, 1)
        for pictures in (lambda m: m.generate(2, seed=3), lambda m: m.interpolate_coordinates(1, 2, 3)):
            assert furthest(pictures(model), pictures(own)) <= 1

    def test_patches_make_panoramas(self, patches: Path, model_file: ModelFile, tmp_path: Path) -> None:
        found = []
        for path, file in ((model_file("dense"), "own.png"), (patches, "file.png")):
            model = load_task("panorama", path, "cpu", "fp32")
            blend: Any = "half-step" if path == model_file("dense") else None  # all that single patches can do
            report = model.panorama(tmp_path / file, 3 * model.size[1], None, "256MiB", 2, blend=blend)
            assert report["precision"] == "fp32"
            found.append(np.asarray(Image.open(tmp_path / file)))
        assert found[0].std() > 5 and furthest(*found) <= 1


def test_info_tells_what_a_file_is(patches: Path) -> None:
    found = describe_model(patches, "cpu")
    assert (found["system"], found["task"], found["precision"], found["output"]) == (
        "coco-gan", "patches", "fp32", "float",
    )  # fmt: skip
    assert found["inputs"] == "latent [N, 6], coordinates [N, 3]" and found["outputs"] == "patches [N, 3, 8, 8]"
    assert found["bytes"] == patches.stat().st_size and found["config"]["patch"] == 8


class TestRefused:
    def test_a_model_that_was_not_exported_from_one(self, images_of_onegan: Path, tmp_path: Path) -> None:
        with pytest.raises(UnknownModelError, match="does not say what it is, so it was not written by `zellige expor"):
            zellige.load(edited(images_of_onegan, tmp_path, config=None), device="cpu")

    def test_tasks_that_begin_with_images(self, images_of_onegan: Path, tmp_path: Path) -> None:
        with pytest.raises(
            TaskError, match="holds the task 'segment' of a onegan model, whose inputs cannot be drawn from a seed"
        ):
            zellige.load(edited(images_of_onegan, tmp_path, task="segment"), device="cpu")

    def test_classes_off_an_image(self, images_of_onegan: Path) -> None:
        with pytest.raises(TaskError, match="was exported to generate, and reads no classes off an image"):
            zellige.load(images_of_onegan, device="cpu").generate(1, like="bird.png")

    def test_another_precision(self, images_of_onegan: Path) -> None:
        with pytest.raises(DeviceError, match="computes in fp32; take the precision auto, or export the model in bf16"):
            zellige.load(images_of_onegan, device="cpu", precision="bf16")

    def test_bfloat16_on_a_cpu(self, images_of_onegan: Path, tmp_path: Path) -> None:
        sentence = "computes in bf16, which ONNX Runtime cannot on CPUs; export it in fp32 or fp16$"
        with pytest.raises(DeviceError, match=sentence):
            zellige.load(edited(images_of_onegan, tmp_path, precision="bf16"), device="cpu")

    def test_rewrites_of_a_graph(self, patches: Path) -> None:
        with pytest.raises(TaskError, match="have the form that they were exported in; see those of its checkpoint$"):
            describe_model(patches, "cpu", rewrites=True)

    def test_the_runtime_of_networks(self, images_of_onegan: Path) -> None:
        with pytest.raises(DeviceError, match="is an ONNX file, which the runtimes 'onnx' and 'tensorrt' run, and not"):
            zellige.load(images_of_onegan, device="cpu", runtime="torch")

    def test_tensorrt_without_a_device(self, images_of_onegan: Path) -> None:
        with pytest.raises(DeviceError, match="^the runtime 'tensorrt' runs on CUDA devices, and not on cpu"):
            zellige.load(images_of_onegan, device="cpu", runtime="tensorrt")

    @pytest.mark.parametrize(
        ("said", "sentence"),
        [
            ({"config": "[1]"}, r"has the configuration \[1\], which is no JSON object; export it again"),
            ({"config": "{"}, "its configuration is not JSON"),
            ({"config": "[" * 10**5}, "its configuration is nested deeper than 64 levels"),
            ({"precision": "8"}, "has the unknown precision '8'; export it again"),
        ],
    )
    def test_a_configuration_that_is_none(
        self, images_of_onegan: Path, tmp_path: Path, said: dict[str, str], sentence: str
    ) -> None:
        with pytest.raises(CheckpointError, match=sentence):
            zellige.load(edited(images_of_onegan, tmp_path, **said), device="cpu")

    def test_a_configuration_of_another_form(self, patches: Path, tmp_path: Path) -> None:
        larger = said_by(patches, "config").replace('"latent": 6', '"latent": 7')
        with pytest.raises(CheckpointError, match=re.escape("takes {'latent': [6], 'coordinates': [3]} and gives")):
            zellige.load(edited(patches, tmp_path, config=larger), device="cpu")

    def test_a_configuration_of_more_weights_than_the_file_holds(self, patches: Path, tmp_path: Path) -> None:
        larger = said_by(patches, "config").replace('"width": 4', '"width": 512')
        with pytest.raises(CheckpointError, match="its config describes [0-9]+ weights and the file holds [0-9]+;"):
            zellige.load(edited(patches, tmp_path, config=larger), device="cpu")

    def test_a_file_that_is_cut_off(self, patches: Path, tmp_path: Path) -> None:
        cut = tmp_path / "cut.onnx"
        cut.write_bytes(patches.read_bytes()[:1000])
        with pytest.raises(CheckpointError, match="^[^\n]+cut.onnx"):
            zellige.load(cut, device="cpu")

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="gone.onnx"):
            zellige.load(tmp_path / "gone.onnx")

    def test_whole_images_where_patches_are_needed(self, images_of_coco_gan: Path) -> None:
        with pytest.raises(TaskError, match="was exported for one task, which allows no panorama; give the checkpoint"):
            load_task("panorama", images_of_coco_gan)

    def test_what_needs_trained_weights(self, patches: Path) -> None:
        for opened in (lambda: load_task("panorama", patches, weights=True), lambda: load_checkpoint(patches)):
            with pytest.raises(TaskError, match="was exported for one task and cannot do this; give the checkpoint"):
                opened()
