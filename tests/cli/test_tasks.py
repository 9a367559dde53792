import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from zellige.cli import main
from zellige.engine.checkpoint.file import read_header, read_tensors
from zellige.engine.library import load_task
from zellige.engine.systems.onegan.model import OneGan
from zellige.errors import DataError
from zellige.training.data.sources import open_scenes

from ..engine.systems.onegan.tiny_onegan import one_thread

__all__ = ["one_thread"]

ModelFile = Callable[..., Path]
Run = Callable[..., tuple[int, str, str]]
CPU = ("--device", "cpu", "--precision", "fp32")
MODEL = "./birds.safetensors"


def picture(seed: int, height: int, width: int) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, onegan_file: ModelFile, model_file: ModelFile) -> Path:
    """A user's folder: a OneGAN, a COCO-GAN, images of three sizes, and what is no image."""
    monkeypatch.chdir(tmp_path)
    Path("birds.safetensors").write_bytes(onegan_file().read_bytes())
    Path("tiles.safetensors").write_bytes(model_file("cylinder").read_bytes())
    picture(0, 64, 64).save("a.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    picture(1, 50, 90).save("b.jpg", exif=exif)
    rgba = picture(2, 70, 64)
    rgba.putalpha(128)
    rgba.save("c, d.png")
    Path("other").mkdir()
    picture(3, 64, 64).save("other/a.png")
    for k, place in enumerate(("objects", "backgrounds")):
        Path("scenes", place).mkdir(parents=True)
        picture(4 + k, 64, 64).save(f"scenes/{place}/a.png")
    Path("text.png").write_text("no image")
    Path("older").mkdir()
    Path("older/a-mask.png").write_bytes(b"older")
    Path("older.csv").write_bytes(b"older")
    return tmp_path


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command; its exit status, stdout and stderr."""

    def command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["zellige", *map(str, arguments)])
        try:
            main()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        return status, *capfd.readouterr()

    return command


@pytest.fixture
def loaded(folder: Path) -> OneGan:
    return load_task("segment", MODEL, device="cpu", precision="fp32")


def one_object(output: tuple[int, str, str]) -> dict[str, Any]:
    status, out, err = output
    assert (status, err) == (0, "") and out.count("\n") == 1
    report = json.loads(out)
    assert isinstance(report, dict)
    return report


def pixels(path: str) -> np.ndarray:
    return np.asarray(Image.open(path))


FILES = ("a.png", "b.jpg", "c, d.png")
TASKS = {
    "reconstruct": ((), ("reconstruction", "foreground", "background", "mask")),
    "segment": ((), ("mask",)),
    "translate": (("--child", 3), ("child-3",)),
    "inpaint": ((), ("background",)),
    "recompose": (("--background", "other/a.png"), ("on-a",)),
}


@pytest.mark.parametrize("task", TASKS)
def test_every_file_gets_its_results(run: Run, task: str) -> None:
    options, endings = TASKS[task]
    report = one_object(run(task, MODEL, *FILES, *options, "--out", "deep/out", *CPU, "--json"))
    expected = [f"deep/out/{Path(file).stem}-{ending}.png" for file in FILES for ending in endings]
    assert report["files"] == expected
    assert sorted(map(str, Path("deep/out").iterdir())) == sorted(expected)
    assert (report["model"], report["images"], report["device"], report["precision"]) == ("birds", 3, "cpu", "fp32")
    assert report["seconds"] > 0
    if task != "segment":
        assert {Image.open(path).size for path in expected} == {(64, 64)}


def test_masks_have_the_sizes_of_the_upright_images(run: Run, loaded: OneGan) -> None:
    assert run("segment", MODEL, *FILES, "--out", "out", *CPU)[0] == 0
    masks = [pixels(f"out/{Path(file).stem}-mask.png") for file in FILES]
    assert [mask.shape for mask in masks] == [(64, 64), (90, 50), (70, 64)]
    assert all(set(np.unique(mask)) <= {0, 255} for mask in masks)
    for mask, expected in zip(masks, loaded.segment(list(FILES)), strict=True):
        assert (mask == expected).all()
    assert run("segment", MODEL, *FILES, "--out", "soft", "--soft", *CPU)[0] == 0
    assert (pixels("soft/a-mask.png") == loaded.segment(["a.png"], soft=True)[0]).all()


def test_files_hold_what_the_tasks_return(run: Run, loaded: OneGan) -> None:
    for task, (options, _) in TASKS.items():
        assert run(task, MODEL, "a.png", *options, "--out", f"of-{task}", *CPU)[0] == 0
    parts = loaded.reconstruct(["a.png"])
    assert (pixels("of-reconstruct/a-reconstruction.png") == parts.image[0]).all()
    assert (pixels("of-reconstruct/a-foreground.png") == parts.foreground[0]).all()
    assert (pixels("of-inpaint/a-background.png") == parts.background[0]).all()
    assert (pixels("of-translate/a-child-3.png") == loaded.translate(["a.png"], 3)[0]).all()
    assert (pixels("of-recompose/a-on-a.png") == loaded.recompose(["a.png"], ["other/a.png"])[0]).all()


def test_clusters_are_a_table(run: Run, loaded: OneGan) -> None:
    report = one_object(run("cluster", MODEL, *FILES, "--out", "found.csv", *CPU, "--json"))
    with open("found.csv", newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    found = loaded.cluster(list(FILES))
    assert header == ["file", "child", "parent", "confidence"]
    assert [row[0] for row in rows] == list(FILES)
    assert [[int(row[1]), int(row[2])] for row in rows] == np.stack([found.child, found.parent], 1).tolist()
    np.testing.assert_allclose([float(row[3]) for row in rows], found.confidence, atol=1e-6)
    assert (report["out"], report["images"]) == ("found.csv", 3)
    assert report["children"] == len(set(found.child)) and report["parents"] == len(set(found.parent))


def test_generation_by_classes_and_by_a_reference(run: Run, loaded: OneGan) -> None:
    classes = ("--child", 3, "--parent", 0, "--background", 2)
    report = one_object(run("generate", MODEL, "-n", 2, "--seed", 4, *classes, "--out", "by-class", *CPU, "--json"))
    expected = loaded.generate(2, 4, child=3, parent=0, background=2)
    assert all((pixels(path) == image).all() for path, image in zip(report["files"], expected, strict=True))
    assert (report["width"], report["height"], report["seed"]) == (64, 64, 4)
    report = one_object(run("generate", MODEL, "-n", 2, "--like", "b.jpg", "--out", "like", *CPU, "--json"))
    images = [pixels(path) for path in report["files"]]
    assert (np.stack(images) == loaded.like(["b.jpg"], 2)[0]).all()
    assert run("generate", MODEL, "-n", 2, "--out", "drawn", *CPU)[0] == 0


def test_results_are_replaced_only_when_asked(run: Run) -> None:
    for verb, out, older in (("segment", "older", "older/a-mask.png"), ("cluster", "older.csv", "older.csv")):
        assert run(verb, MODEL, "a.png", "--out", out, *CPU)[0] == 2
        assert Path(older).read_bytes() == b"older"
        assert run(verb, MODEL, "a.png", "--out", out, "--overwrite", *CPU)[0] == 0
    assert pixels("older/a-mask.png").shape == (64, 64)
    assert Path("older.csv").read_text().startswith("file,child,parent,confidence\na.png,")


def test_an_evaluation_is_recorded_and_the_weights_stay(run: Run) -> None:
    before = read_header(MODEL)
    weights = read_tensors(before)
    options = ("--data", "scenes", "--count", 3, "--seed", 2, *CPU)
    report = one_object(run("evaluate", MODEL, *options, "--record", "--json"))
    assert (report["model"], report["data"], report["count"], report["seed"]) == ("birds", "scenes", 3, 2)
    assert report["reconstruction_psnr"] > 0 and "iou" in report["missing"]["the data has no true masks"]
    after = read_header(MODEL)
    assert report == {"model": "birds"} | after.details["metrics"]
    assert after.config == before.config
    assert all(torch.equal(weights[name], tensor) for name, tensor in read_tensors(after).items())
    # Another run finds the same, and writes nothing unasked.
    again = one_object(run("evaluate", MODEL, *options, "--json"))
    assert again | {"seconds": 0} == report | {"seconds": 0}
    assert read_header(MODEL).details == after.details


def test_an_evaluation_shows_people_tables_of_classes(run: Run) -> None:
    try:
        open_scenes("emoji-unseen", (64, 64))
    except DataError as missing:
        pytest.skip(str(missing))
    status, out, _ = run("evaluate", MODEL, "--data", "emoji-unseen", "--count", 2, *CPU)
    assert status == 0
    assert out.index("child_nmi") < out.index("per_class") < out.index("brown heart") < out.index("per_parent")


def test_an_evaluation_of_tiles_is_that_of_their_system(run: Run) -> None:
    options = ("--data", "scenes", "--count", 2, *CPU)
    report = one_object(run("evaluate", "./tiles.safetensors", *options, "--json"))
    assert (report["model"], report["count"]) == ("tiles", 2)
    assert report.keys() >= {"sliced_wasserstein", "seam_ratio", "seam_ratio_single", "diversity"}
    assert "iou" not in report


def task(name: str, *arguments: object, model: str = MODEL) -> tuple[object, ...]:
    return name, model, *arguments, *TASKS[name][0], "--out", "new"


OTHER = "tiles.safetensors holds a coco-gan model; `zellige models` lists models with their systems"
REFUSED = {
    **{
        f"{name} by another system": (
            task(name, "a.png", model="./tiles.safetensors"), f"{name} needs a onegan model, and {OTHER}")
        for name in TASKS
    },
    "cluster by another system": (
        ("cluster", "./tiles.safetensors", "a.png", "--out", "new.csv"), f"cluster needs a onegan model, and {OTHER}"),
    "classes of another system": (
        ("generate", "./tiles.safetensors", "--child", 0, "--out", "new"),
        f"generate --child needs a onegan model, and {OTHER}"),
    "reference of another system": (
        ("generate", "./tiles.safetensors", "--like", "a.png", "--out", "new"),
        f"generate --like needs a onegan model, and {OTHER}"),
    "panorama by a OneGAN": (
        ("panorama", MODEL, "--out", "new.tif"), "panorama needs a coco-gan model, and birds.safetensors holds a"),
    "evaluation of a panorama": (
        ("evaluate", MODEL, "--image", "a.png"),
        "evaluate --image needs a coco-gan model, and birds.safetensors holds a onegan model; `zellige models` lists"),
    "evaluation against nothing": (("evaluate", MODEL), "birds does not say what it was trained on; name the data"),
    "evaluation without objects": (("evaluate", MODEL, "--data", "other"), "other has no folder objects; put pictures"),
    "evaluation with one image": (
        ("evaluate", MODEL, "--data", "scenes", "--count", 1), "1 images cannot be compared; use --count 2 or more"),
    "evaluation under a negative seed": (
        ("evaluate", MODEL, "--data", "scenes", "--seed", -1), "the seed must be 0 or more, not -1"),
    "no such child": (
        ("translate", MODEL, "a.png", "--child", 7, "--out", "new"), "birds has no child class 7; its 7 are 0 to 6"),
    "no such child, generation": (
        ("generate", MODEL, "--child", -1, "--out", "new"), "birds has no child class -1; its 7 are 0 to 6"),
    "no such parent": (("generate", MODEL, "--parent", 3, "--out", "new"), "birds has no parent class 3; its 3 are 0"),
    "no such background": (
        ("generate", MODEL, "--background", 3, "--out", "new"), "birds has no background class 3; its 3 are 0 to 2"),
    "classes and a reference": (
        ("generate", MODEL, "--child", 1, "--like", "a.png", "--out", "new"),
        "--like takes the classes from an image; leave out --like, or --child"),
    "no image among others": (task("segment", "a.png", "text.png"), "text.png is no image, or in no format"),
    "no image, cluster": (("cluster", MODEL, "text.png", "--out", "new.csv"), "text.png is no image, or in no format"),
    "no image, reference": (("generate", MODEL, "--like", "text.png", "--out", "new"), "text.png is no image"),
    "no image, background": (
        ("recompose", MODEL, "a.png", "--background", "text.png", "--out", "new"), "text.png is no image"),
    "missing image": (task("inpaint", "gone.png"), "there is no image file gone.png; give a PNG, JPEG"),
    "a folder": (task("inpaint", "other"), "other is a folder; give the image files in it, such as other/*.png"),
    "two of a name": (
        task("segment", "a.png", "other/a.png"),
        "a.png and other/a.png would both become new/a-mask.png; rename one, or use another --out"),
    "an older result": (
        ("segment", MODEL, "b.jpg", "a.png", "--out", "older"),
        "older/a-mask.png exists already; choose another --out, or replace it with --overwrite"),
    "an older table": (("cluster", MODEL, "a.png", "--out", "older.csv"), "older.csv exists already; choose another"),
    "a table that is a folder": (("cluster", MODEL, "a.png", "--out", "older"), "older is a folder; give the name"),
    "a table nowhere": (("cluster", MODEL, "a.png", "--out", "gone/new.csv"), "there is no folder"),
    "results in a file": (("segment", MODEL, "a.png", "--out", "text.png"), "text.png cannot be written"),
    "results where none can be": (("segment", MODEL, "a.png", "--out", "/proc/new"), "/proc/new cannot be written"),
    "unknown device": (task("segment", "a.png", "--device", "tpu"), "use auto, cpu or cuda"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_sentence_and_leaves_nothing(run: Run, folder: Path, case: str) -> None:
    arguments, part = REFUSED[case]
    before = [(path, path.read_bytes() if path.is_file() else None) for path in sorted(folder.rglob("*"))]
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("zellige: ") and err.count("\n") == 1 and part in err
    assert [(path, path.read_bytes() if path.is_file() else None) for path in sorted(folder.rglob("*"))] == before


def test_without_json_people_get_a_table(run: Run) -> None:
    status, out, _ = run("segment", MODEL, "a.png", "--out", "out", *CPU)
    assert status == 0 and "images_per_second" in out
