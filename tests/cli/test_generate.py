import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zellige.engine.files.pictures import contact_sheet
from zellige.engine.library import load_checkpoint
from zellige.engine.systems.coco_gan.model import CocoGan

from .command import BIRDS, CPU, TILES, Run, generate, one_object, refused

REFUSED = {
    "images in a file": (generate(out="plain.txt"), "plain.txt cannot be written"),
    "images below a file": (generate(out="plain.txt/images"), "plain.txt/images cannot be written"),
    "images where none can be": (generate(out="/proc/images"), "/proc/images cannot be written"),
    "classes of another system": (
        generate("--child", 0), "generate of cylinder has no option --child; it has no options of its own"),
    "reference of another system": (generate("--like", "a.png"), "generate of cylinder has no option --like"),
    "negative child": (generate("--child", -1, model=BIRDS), "--child must be 0 or more, not -1"),
    "child beyond 64 bits": (
        generate("--child", 10**20, model=BIRDS), "birds has no child class 100000000000000000000; its 7 are 0 to 6"
    ),
    "no such child": (generate("--child", 7, model=BIRDS), "birds has no child class 7; its 7 are 0 to 6"),
    "no such parent": (generate("--parent", 3, model=BIRDS), "birds has no parent class 3; its 3 are 0"),
    "no such background": (generate("--background", 3, model=BIRDS), "birds has no background class 3; its 3 are 0"),
    "classes and a reference": (generate("--child", 1, "--like", "a.png", model=BIRDS), "leave out like, or child"),
    "no image as reference": (generate("--like", "text.png", model=BIRDS), "text.png is no image"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_sentence_and_leaves_nothing(run: Run, case: str) -> None:
    refused(run, *REFUSED[case])


def test_the_report_names_every_file(run: Run) -> None:
    report = one_object(run(*generate("-n", 3, "--seed", 4, *CPU, "--json")))
    assert {"seconds", "device", "precision", "seed"} <= set(report)
    assert (report["model"], report["images"], report["seed"]) == ("cylinder", 3, 4)
    assert (report["device"], report["precision"]) == ("cpu", "fp32")
    names = sorted(path.name for path in Path("images").iterdir())
    assert names == sorted(Path(path).name for path in [*report["files"], report["sheet"]])
    assert len(report["files"]) == 3
    assert {Image.open(path).size for path in report["files"]} == {(32, 24)}


def test_people_get_a_table(run: Run) -> None:
    status, out, _ = run(*generate("-n", 2))
    assert status == 0 and "images/cylinder-0-0000.png ... cylinder-0-0001.png" in out
    with pytest.raises(ValueError):
        json.loads(out)


def test_generated_files_do_not_depend_on_their_number(run: Run) -> None:
    for count, out in ((2, "few"), (18, "many")):  # more than a batch
        assert run(*generate("-n", count, out=out))[0] == 0
    for name in ("cylinder-0-0000.png", "cylinder-0-0001.png"):
        assert Path("few", name).read_bytes() == Path("many", name).read_bytes()


@pytest.mark.parametrize("model", [TILES, BIRDS])
def test_a_run_from_a_number_on_makes_the_same_images(run: Run, model: str) -> None:
    whole = one_object(run(*generate("-n", 4, *CPU, "--json", model=model, out="whole")))
    part = one_object(run(*generate("-n", 2, "--first", 2, *CPU, "--json", model=model, out="part")))
    assert [Path(path).name for path in part["files"]] == [Path(path).name for path in whole["files"][2:]]
    for one, other in zip(part["files"], whole["files"][2:], strict=True):
        assert Path(one).read_bytes() == Path(other).read_bytes()


def test_images_by_classes_and_by_a_reference(run: Run) -> None:
    loaded: Any = load_checkpoint(BIRDS, "cpu", "fp32")
    classes = ("--child", 3, "--parent", 0, "--background", 2)
    report = one_object(run(*generate("-n", 2, "--seed", 4, *classes, *CPU, "--json", model=BIRDS, out="by-class")))
    expected = loaded.generate(2, 4, child=3, parent=0, background=2)
    assert all((pixels(path) == image).all() for path, image in zip(report["files"], expected, strict=True))
    assert (report["width"], report["height"], report["seed"]) == (64, 64, 4)
    report = one_object(run(*generate("-n", 2, "--like", "b.jpg", *CPU, "--json", model=BIRDS, out="like")))
    images = [pixels(path) for path in report["files"]]
    assert (np.stack(images) == loaded.like(["b.jpg"], 2)[0]).all()
    assert run(*generate("-n", 2, *CPU, model=BIRDS, out="drawn"))[0] == 0


def test_images_are_replaced_only_when_asked(run: Run) -> None:
    assert run(*generate("-n", 2))[0] == 0
    Path("images/cylinder-0-0001.png").write_bytes(b"older")
    Path("images/cylinder-0-0000.png").unlink()
    refused(run, generate("-n", 2), "images/cylinder-0-0001.png exists already; choose another name, or replace it")
    assert run(*generate("-n", 2, "--overwrite"))[0] == 0
    assert Path("images/cylinder-0-0001.png").read_bytes() != b"older"


def test_the_sheet_counts_as_a_result(run: Run) -> None:
    Path("images").mkdir()
    Path("images/cylinder-0-sheet.png").write_bytes(b"older")
    refused(run, generate("-n", 1), "images/cylinder-0-sheet.png exists already")


def test_an_image_is_not_written_over_its_reference(run: Run) -> None:
    Path("images").mkdir()
    Path("images/birds-0-0000.png").write_bytes(Path("a.png").read_bytes())
    Path("link.png").symlink_to("images/birds-0-0000.png")
    refused(
        run, generate("-n", 1, "--like", "link.png", "--overwrite", model=BIRDS),
        "--out would write images/birds-0-0000.png, which is also --like; give --out another name",
    )  # fmt: skip


def test_names_with_brackets_are_printed_as_they_are(run: Run) -> None:
    for out in ("run[/1]", "a[b]c", ":smile:"):
        status, text, err = run(*generate("-n", 1, out=out))
        assert (status, err) == (0, "") and f"{out}/cylinder-0-0000.png" in text
        assert Path(out, "cylinder-0-0000.png").is_file()


def stopped_after(monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    """Ctrl-C when so many batches were made."""
    make, made = CocoGan.generate, []

    def stopping(self: CocoGan, *arguments: Any, **options: Any) -> Any:
        if len(made) == calls:
            raise KeyboardInterrupt
        made.append(1)
        return make(self, *arguments, **options)

    monkeypatch.setattr(CocoGan, "generate", stopping)


def test_a_stopped_run_keeps_its_images_and_says_how_to_go_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = one_object(run(*generate("-n", 20, "--json", out="whole")))
    with monkeypatch.context() as patch:
        stopped_after(patch, 1)
        status, out, err = run(*generate("-n", 20))
    assert (status, out) == (130, "")
    assert err == "zellige: stopped after 16 of 20 images, which are in images; go on with --first 16 --count 4\n"
    assert len(list(Path("images").iterdir())) == 16
    assert run(*generate("--first", 16, "--count", 4))[0] == 0
    for path in map(Path, whole["files"]):
        assert Path("images", path.name).read_bytes() == path.read_bytes()


def test_a_run_that_is_stopped_at_once_leaves_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped_after(monkeypatch, 0)
    status, _, err = run(*generate("-n", 20))
    assert (status, err) == (130, "zellige: stopped after 0 of 20 images; go on with --first 0 --count 20\n")
    assert not Path("images").exists()


def test_the_sheet_has_the_first_64_images(run: Run) -> None:
    report = one_object(run(*generate("-n", 66, *CPU, "--json")))
    expected = contact_sheet(load_checkpoint(TILES, "cpu", "fp32").generate(64))
    assert (pixels(report["sheet"]) == expected).all()


def pixels(path: str) -> Any:
    return np.asarray(Image.open(path))
