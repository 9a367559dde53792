from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zellige.engine.coco_gan import CocoGan
from zellige.engine.library import load, load_for

ModelFile = Callable[..., Path]

for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package)


def opened(model_file: ModelFile, name: str) -> tuple[CocoGan, CocoGan]:
    """The same model by torch and by ONNX Runtime."""
    found = [load(model_file(name), "cpu", "fp32", runtime=runtime) for runtime in ("torch", "onnx")]
    first, second = found
    assert isinstance(first, CocoGan) and isinstance(second, CocoGan)
    return first, second


def furthest(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@pytest.mark.parametrize("name", ["plane", "cylinder", "dense"])
def test_images_are_those_of_torch_to_a_level(model_file: ModelFile, name: str) -> None:
    ours, theirs = opened(model_file, name)
    images = ours.generate(3, seed=1)
    assert images.std() > 5
    assert furthest(images, theirs.generate(3, seed=1)) <= 1


def test_panoramas_are_those_of_torch_to_a_level(model_file: ModelFile, tmp_path: Path) -> None:
    ours, theirs = opened(model_file, "dense")
    width = 5 * ours.resolution[1]
    for model, file in ((ours, "ours.png"), (theirs, "theirs.png")):
        report = model.panorama(tmp_path / file, width=width, memory="256MiB", seed=2)
        assert report["width"] == width
    first, second = (np.asarray(Image.open(tmp_path / file)) for file in ("ours.png", "theirs.png"))
    assert first.shape == second.shape and furthest(first, second) <= 1


def test_models_are_opened_with_it_by_name(model_file: ModelFile) -> None:
    model = load_for(CocoGan, "tests", model_file("dense"), "cpu", "auto", "onnx")
    assert (model.precision, model.choices) == ("fp32", [])
