"""What an evaluation reports, and that it knows the data when it sees it."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from zellige.engine.checkpoint.file import write_checkpoint
from zellige.engine.files.pixels import open_pixels
from zellige.engine.library import load
from zellige.engine.systems.coco_gan.config import CocoGanConfig
from zellige.engine.systems.coco_gan.generator import Generator
from zellige.engine.systems.coco_gan.model import CocoGan
from zellige.errors import DataError
from zellige.training.data.listing import list_pictures
from zellige.training.systems import evaluate, evaluate_file
from zellige.training.systems.coco_gan.evaluate import _single_seams

from ...sides import fill
from ...sides import noise as noises

CONFIG = CocoGanConfig(
    topology="cylinder", rows=4, columns=8, patch=4, latent=4, width=1, critic_width=1, condition_scale=1.0
)
COUNT = 4


def tiny_model(folder: Path, config: CocoGanConfig = CONFIG, **details: Any) -> CocoGan:
    """A random generator whose images differ from place to place and from latent to latent."""
    torch.manual_seed(0)
    generator = Generator(config, spectral=False)
    state = {
        f"generator.{name}": 3 * value for name, value in generator.state_dict().items() if value.is_floating_point()
    }
    path = folder / "model.safetensors"
    write_checkpoint(path, state, system="coco-gan", config=config.model_dump(mode="json"), details=details)
    return load(path, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> CocoGan:
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def own_images(model: CocoGan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the very images that the model generates, none of which is held out."""
    return fill(tmp_path_factory.mktemp("own"), lambda k: model.generate(COUNT, seed=5)[k], COUNT)


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of ten pictures, two of which are held out."""
    return fill(tmp_path_factory.mktemp("noise"), noises(16, 32), 10, {0, 7})


def test_images_of_the_data_are_at_distance_zero(model, own_images):
    report = evaluate(model, str(own_images), COUNT, seed=5)
    assert set(report["sliced_wasserstein"].values()) == {0.0}
    assert report["diversity"] == pytest.approx(1.0)
    assert report["seam_ratio"] == report["seam_ratio_data"]


def test_other_images_are_at_a_distance(model, own_images):
    report = evaluate(model, str(own_images), COUNT, seed=6)
    assert report["sliced_wasserstein"]["mean"] > 0
    assert report["sliced_wasserstein_data"]["mean"] == 0  # of so few pictures none is held out


def test_report_holds_every_key_in_its_range(model, noise):
    report = evaluate(model, str(noise), count=2)
    context = {"data": str(noise), "count": 2, "device": "cpu", "precision": "fp32", "seed": 0}
    assert report.items() >= context.items()
    for name in ("sliced_wasserstein", "sliced_wasserstein_data"):
        assert report[name].keys() == {"16", "mean"}
        assert all(math.isfinite(value) and value > 0 for value in report[name].values())
    for name in ("seam_ratio", "seam_ratio_data"):
        assert report[name].keys() == {"vertical", "horizontal", "horizontal_wrap"}
        assert all(math.isfinite(value) and value >= 0 for value in report[name].values())
    for axis, (smallest, largest) in report["seam_ratio_single"].items():
        assert smallest <= report["seam_ratio"][axis] * 1.5
        assert largest >= report["seam_ratio"][axis] / 1.5
        assert 0 <= smallest <= largest
    assert report["diversity"] > 0 and report["seconds"] > 0


def test_the_worst_single_border_is_found():
    image = np.zeros((16, 32, 3), np.uint8)
    image[:, 8:] = 10
    image[:, 24:] = 60
    flat = np.arange(16, dtype=np.uint8)[:, None, None] * np.ones((16, 32, 3), np.uint8)
    ranges = _single_seams([image, flat], 8)
    # 10 at column 8, 0 at 16, 50 at 24, over the 30 others' mean of 50 / 30, 60 / 30 and 10 / 30.
    assert ranges["horizontal"] == pytest.approx([0.0, 50 / (10 / 30)])
    assert ranges["vertical"] == pytest.approx([1.0, 1.0])


def test_noise_has_no_seams(model, noise):
    ratios = evaluate(model, str(noise), count=2)["seam_ratio_data"]
    assert all(value == pytest.approx(1, abs=0.2) for value in ratios.values())


def test_open_axes_have_no_wrap(noise, tmp_path):
    plane = tiny_model(tmp_path, CONFIG.model_copy(update={"topology": "plane"}))
    assert evaluate(plane, str(noise), count=2)["seam_ratio"].keys() == {"vertical", "horizontal"}


def test_data_of_the_training_is_the_default(noise, tmp_path):
    model = tiny_model(tmp_path, data=str(noise))
    assert evaluate(model, count=2)["data"] == str(noise)


def test_unknown_training_data_must_be_named(model):
    with pytest.raises(DataError, match=r"model does not say what it was trained on; name .* with --data"):
        evaluate(model, count=2)


def test_one_image_is_not_compared(model, noise):
    with pytest.raises(DataError, match="1 images cannot be compared; use --count 2 or more"):
        evaluate(model, str(noise), count=1)


@pytest.mark.parametrize("extension", [".tif", ".png"])
def test_panorama_is_measured_from_its_file(extension, model, noise, tmp_path):
    path = tmp_path / f"panorama{extension}"
    if extension == ".tif":
        pytest.importorskip("tifffile")
    model.panorama(path, width=64, memory="1GiB")
    report = evaluate_file(model, path, str(noise))
    assert (report["image"], report["width"], report["height"]) == (str(path), 64, 16)
    for name in ("seam_ratio", "seam_ratio_half_step", "seam_ratio_data"):
        assert report[name].keys() == {"vertical", "horizontal", "horizontal_wrap"}
        assert all(math.isfinite(value) and value >= 0 for value in report[name].values())


def test_formats_do_not_change_the_ratios(model, noise, tmp_path):
    pytest.importorskip("tifffile")
    reports = []
    for name in ("panorama.tif", "panorama.png"):
        model.panorama(tmp_path / name, width=64, memory="1GiB")
        reports.append(evaluate_file(model, tmp_path / name, str(noise)))
    assert reports[0]["seam_ratio"] == reports[1]["seam_ratio"]


@pytest.mark.parametrize("name", ["missing.tif", "missing.png", "broken.tif", "broken.png"])
def test_file_that_is_no_picture_is_named(name, model, noise, tmp_path):
    if name.endswith(".tif"):
        pytest.importorskip("tifffile")
    (tmp_path / "broken.tif").write_bytes(b"II*\0no picture")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(
        DataError, match=f"(there is no image file .*{name}|{name} (cannot be read as a TIFF|is no image))"
    ):
        evaluate_file(model, tmp_path / name, str(noise))


def test_grey_pictures_are_measured_as_rgb(model, noise, tmp_path):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "grey.tif", np.tile(np.arange(64, dtype=np.uint8), (16, 1)))
    assert evaluate_file(model, tmp_path / "grey.tif", str(noise))["width"] == 64


def test_an_unfinished_panorama_is_named(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", noises(50, 70)(0), photometric="rgb", tile=(16, 32))
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:5_000])
    with pytest.raises(DataError, match=r"a\.tif cannot be read as a TIFF picture: corrupted tile"):
        open_pixels(tmp_path / "a.tif")


def test_a_png_beyond_pillows_bound_is_named(tmp_path):
    Image.new("1", (20_000, 10_000)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png has .*, and at most 100,000,000 are read"):
        open_pixels(tmp_path / "a.png")


def test_data_that_has_changed_is_said(tmp_path, caplog):
    folder = fill(tmp_path / "data", noises(16, 32), 4, {0})
    counts = list_pictures(folder).counts()
    model = tiny_model(tmp_path, data=str(folder), pictures={"pictures": counts})
    report = evaluate(model, count=2)
    assert report["data_changed"] is False and not caplog.records
    assert list(report["missing"].values()) == [["diversity"]]  # one held-out picture has no variety to compare with
    assert report["pictures"] == {"pictures": counts | {"found": 4, "trained_on": 3, "held_out": 1, "left_out": 0}}
    (folder / "002.png").unlink()
    assert evaluate(model, count=2)["data_changed"] is True
    assert "holds other pictures than model was trained on" in caplog.text


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seed_out_of_bounds_is_refused(seed, model, noise):
    with pytest.raises(DataError, match=rf"the seed must be 0 or more and below 2\*\*63, not {seed}"):
        evaluate(model, str(noise), count=2, seed=seed)
