from pathlib import Path

import pytest
import torch

from zellige.engine.checkpoint.file import read_header, read_tensors
from zellige.engine.library import BUNDLED
from zellige.errors import DataError
from zellige.training.data.sources import open_scenes

from .command import BIRDS, CPU, TILES, Run, one_object, refused

REFUSED = {
    "a panorama of another system": (("evaluate", BIRDS, "--image", "a.png"), "birds"),
    "against nothing": (("evaluate", BIRDS), "birds does not say what it was trained on; name the data"),
    "without objects": (("evaluate", BIRDS, "--data", "other"), "other has no folder objects; put pictures"),
    "a count with an image": (
        ("evaluate", TILES, "--image", "a.png", "--count", 3), "--image does not use --count; leave it out"),
    "a default given with an image": (
        ("evaluate", TILES, "--image", "a.png", "--seed", 0), "--image does not use --seed; leave it out"),
    "everything with an image": (
        ("evaluate", TILES, "--image", "a.png", "--count", 3, "--record", "--seed", 1),
        "--image does not use --count, --record and --seed; leave them out"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_sentence_and_leaves_nothing(run: Run, case: str) -> None:
    refused(run, *REFUSED[case])


def test_a_bundled_model_is_not_written(run: Run) -> None:
    before = (BUNDLED / "planet.safetensors").read_bytes()
    Path("link.safetensors").symlink_to(BUNDLED / "planet.safetensors")
    for model in ("planet", "./link.safetensors"):
        refused(run, ("evaluate", model, "--record"), "belongs to the installed package; copy it, such as cp ")
    assert (BUNDLED / "planet.safetensors").read_bytes() == before


def test_a_record_keeps_the_weights(run: Run) -> None:
    before = read_header(BIRDS)
    weights = read_tensors(before)
    options = ("--data", "scenes", "--count", 3, "--seed", 2, *CPU)
    report = one_object(run("evaluate", BIRDS, *options, "--record", "--json"))
    assert (report["model"], report["count"], report["seed"]) == ("birds", 3, 2)
    assert report["data"] == str(Path("scenes").resolve())
    assert report["reconstruction_psnr"] > 0 and "iou" in report["missing"]["the data has no true masks"]
    after = read_header(BIRDS)
    assert report == {"model": "birds"} | after.details["metrics"]
    assert after.config == before.config
    assert all(torch.equal(weights[name], tensor) for name, tensor in read_tensors(after).items())
    # Another run finds the same, and writes nothing unasked.
    again = one_object(run("evaluate", BIRDS, *options, "--json"))
    assert again | {"seconds": 0} == report | {"seconds": 0}
    assert read_header(BIRDS).details == after.details


def test_people_get_tables_of_classes(run: Run) -> None:
    try:
        open_scenes("emoji-unseen", (64, 64))
    except DataError as missing:
        pytest.skip(str(missing))
    status, out, _ = run("evaluate", BIRDS, "--data", "emoji-unseen", "--count", 2, *CPU)
    assert status == 0
    assert out.index("child_nmi") < out.index("per_class") < out.index("brown heart") < out.index("per_parent")


def test_the_metrics_are_those_of_the_models_system(run: Run) -> None:
    report = one_object(run("evaluate", TILES, "--data", "scenes", "--count", 2, *CPU, "--json"))
    assert (report["model"], report["count"]) == ("cylinder", 2)
    assert report.keys() >= {"sliced_wasserstein", "seam_ratio", "seam_ratio_single", "diversity"}
    assert "iou" not in report


def test_an_image_is_measured_by_its_model(run: Run) -> None:
    assert run("panorama", TILES, "--size", "64x", "--out", "out.png", *CPU)[0] == 0
    report = one_object(run("evaluate", TILES, "--image", "out.png", "--data", "scenes", *CPU, "--json"))
    assert (report["model"], report["width"], report["height"]) == ("cylinder", 64, 24)
