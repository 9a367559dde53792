import csv
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import Field

from zellige.engine import systems
from zellige.engine.library import load_checkpoint
from zellige.engine.systems.onegan.model import OneGan
from zellige.engine.systems.system import Options, Source, System, Task

from .command import BIRDS, CPU, TILES, Run, one_object, refused

FILES = ("a.png", "b.jpg", "c, d.png")
TASKS = {
    "reconstruct": ((), ("reconstruction", "foreground", "background", "mask")),
    "segment": ((), ("mask",)),
    "translate": (("--child", 3), ("child-3",)),
    "inpaint": ((), ("background",)),
    "recompose": (("--background", "other/a.png"), ("on-a",)),
}


@pytest.fixture
def loaded(folder: Path) -> Any:
    return load_checkpoint(BIRDS, "cpu", "fp32")


def pixels(path: str) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("task", TASKS)
def test_every_file_gets_its_results(run: Run, task: str) -> None:
    options, endings = TASKS[task]
    report = one_object(run(task, BIRDS, *FILES, *options, "--out", "deep/out", *CPU, "--json"))
    expected = [f"deep/out/{Path(file).stem}-{ending}.png" for file in FILES for ending in endings]
    assert report["files"] == expected
    assert sorted(map(str, Path("deep/out").iterdir())) == sorted(expected)
    assert (report["model"], report["images"], report["device"], report["precision"]) == ("birds", 3, "cpu", "fp32")
    assert report["seconds"] > 0
    if task != "segment":
        assert {Image.open(path).size for path in expected} == {(64, 64)}


def test_masks_have_the_sizes_of_the_upright_images(run: Run, loaded: OneGan) -> None:
    assert run("segment", BIRDS, *FILES, "--out", "out", *CPU)[0] == 0
    masks = [pixels(f"out/{Path(file).stem}-mask.png") for file in FILES]
    assert [mask.shape for mask in masks] == [(64, 64), (90, 50), (70, 64)]
    assert all(set(np.unique(mask)) <= {0, 255} for mask in masks)
    for mask, expected in zip(masks, loaded.segment(list(FILES)), strict=True):
        assert (mask == expected).all()
    assert run("segment", BIRDS, *FILES, "--out", "soft", "--soft", *CPU)[0] == 0
    assert (pixels("soft/a-mask.png") == loaded.segment(["a.png"], soft=True)[0]).all()


def test_files_hold_what_the_tasks_return(run: Run, loaded: OneGan) -> None:
    for task, (options, _) in TASKS.items():
        assert run(task, BIRDS, "a.png", *options, "--out", f"of-{task}", *CPU)[0] == 0
    parts = loaded.reconstruct(["a.png"])
    assert (pixels("of-reconstruct/a-reconstruction.png") == parts.image[0]).all()
    assert (pixels("of-reconstruct/a-foreground.png") == parts.foreground[0]).all()
    assert (pixels("of-reconstruct/a-background.png") == parts.background[0]).all()
    assert (pixels("of-reconstruct/a-mask.png") == parts.mask[0]).all()
    assert (pixels("of-inpaint/a-background.png") == parts.background[0]).all()
    assert (pixels("of-translate/a-child-3.png") == loaded.translate(["a.png"], 3)[0]).all()
    expected = loaded.recompose(images=["a.png"], background=["other/a.png"])[0]
    assert (pixels("of-recompose/a-on-a.png") == expected).all()


def test_files_go_through_in_batches(run: Run, loaded: OneGan) -> None:
    files = [f"copy-{k}.png" for k in range(loaded.batch + 2)]
    for k, file in enumerate(files):
        Path(file).write_bytes(Path("a.png" if k % 2 else "other/a.png").read_bytes())
    assert run("inpaint", BIRDS, *files, "--out", "out", *CPU)[0] == 0
    expected = loaded.inpaint(["other/a.png", "a.png"])
    for k in range(len(files)):
        assert (pixels(f"out/copy-{k}-background.png") == expected[k % 2]).all()


def test_clusters_are_a_table(run: Run, loaded: OneGan) -> None:
    report = one_object(run("cluster", BIRDS, *FILES, "--out", "found.csv", *CPU, "--json"))
    with open("found.csv", newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    found = loaded.cluster(list(FILES))
    assert header == ["file", "child", "parent", "confidence"]
    assert [row[0] for row in rows] == list(FILES)
    assert [[int(row[1]), int(row[2])] for row in rows] == np.stack([found.child, found.parent], 1).tolist()
    np.testing.assert_allclose([float(row[3]) for row in rows], found.confidence, atol=1e-6)
    assert (report["out"], report["images"]) == ("found.csv", 3)
    assert report["children"] == len(set(found.child)) and report["parents"] == len(set(found.parent))


def test_results_are_replaced_only_when_asked(run: Run) -> None:
    for verb, out, older in (("segment", "older", "older/a-mask.png"), ("cluster", "older.csv", "older.csv")):
        assert run(verb, BIRDS, "a.png", "--out", out, *CPU)[0] == 2
        assert Path(older).read_bytes() == b"older"
        assert run(verb, BIRDS, "a.png", "--out", out, "--overwrite", *CPU)[0] == 0
    assert pixels("older/a-mask.png").shape == (64, 64)
    assert Path("older.csv").read_text().startswith("file,child,parent,confidence\na.png,")


def test_a_result_is_not_written_over_an_input(run: Run) -> None:
    os.link("b.jpg", "a-mask.png")
    refused(
        run, ("segment", BIRDS, "a.png", "b.jpg", "--out", ".", "--overwrite"),
        "--out would write a-mask.png, which is also an input, images; give --out another name",
    )  # fmt: skip
    refused(run, ("cluster", BIRDS, "a.png", "--out", "./a.png", "--overwrite"), "--out would write a.png")
    Path("a-on-b.png").symlink_to("b.jpg")
    words = ("recompose", BIRDS, "a.png", "--background", "b.jpg", "--out", ".", "--overwrite")
    refused(run, words, "which is also an input, --background")


def test_a_stopped_run_keeps_its_results(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [f"copy-{k}.png" for k in range(OneGan.batch + 2)]
    for file in files:
        Path(file).write_bytes(Path("a.png").read_bytes())
    inpaint, made = OneGan.inpaint, []

    def stopping(self: OneGan, images: Any) -> Any:
        if made:
            raise KeyboardInterrupt
        made.append(1)
        return inpaint(self, images)

    monkeypatch.setattr(OneGan, "inpaint", stopping)
    status, out, err = run("inpaint", BIRDS, *files, "--out", "out", *CPU)
    assert (status, out) == (130, "")
    assert err == (
        "zellige: stopped after 16 of 18 images, whose results are in out; go on with the files from copy-16.png on\n"
    )
    assert len(list(Path("out").iterdir())) == OneGan.batch


def task(name: str, *arguments: object, model: str = BIRDS) -> tuple[object, ...]:
    return name, model, *arguments, *TASKS[name][0], "--out", "new"


REFUSED = {
    **{f"{name} by another system": (task(name, "a.png", model=TILES), name) for name in TASKS},
    "cluster by another system": (("cluster", TILES, "a.png", "--out", "new.csv"), "cluster"),
    "no style": (("translate", BIRDS, "a.png", "--out", "new"), "missing option '--child'"),
    "no such child": (
        ("translate", BIRDS, "a.png", "--child", 7, "--out", "new"), "birds has no child class 7; its 7 are 0 to 6"),
    "a negative child": (
        ("translate", BIRDS, "a.png", "--child", -1, "--out", "new"), "--child must be 0 or more, not -1"),
    "no image among others": (task("segment", "a.png", "text.png"), "text.png is no image, or in no format"),
    "no image, cluster": (("cluster", BIRDS, "text.png", "--out", "new.csv"), "text.png is no image, or in no format"),
    "no image, background": (
        ("recompose", BIRDS, "a.png", "--background", "text.png", "--out", "new"), "text.png is no image"),
    "missing image": (task("inpaint", "gone.png"), "there is no image file gone.png; give a PNG, JPEG"),
    "a folder": (task("inpaint", "other"), "other is a folder; give the image files in it, such as other/*.png"),
    "two of a name": (
        task("segment", "a.png", "other/a.png"),
        "a.png and other/a.png would both become new/a-mask.png; rename one, or give it another --out"),
    "an older result": (
        ("segment", BIRDS, "b.jpg", "a.png", "--out", "older"),
        "older/a-mask.png exists already; choose another name, or replace it with --overwrite"),
    "an older table": (("cluster", BIRDS, "a.png", "--out", "older.csv"), "older.csv exists already; choose another"),
    "a table that is a folder": (("cluster", BIRDS, "a.png", "--out", "older"), "older is a folder; give the name"),
    "a table nowhere": (("cluster", BIRDS, "a.png", "--out", "gone/new.csv"), "there is no folder"),
    "results in a file": (("segment", BIRDS, "a.png", "--out", "text.png"), "text.png cannot be written"),
    "results where none can be": (("segment", BIRDS, "a.png", "--out", "/proc/new"), "/proc/new cannot be written"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_sentence_and_leaves_nothing(run: Run, case: str) -> None:
    refused(run, *REFUSED[case])


class Strength(Options):
    strength: int = Field(1, ge=0, description="How strong.")


@pytest.fixture
def with_tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A third row of the table, one of whose tasks has the name of another system's."""
    images, palette = Source("images", "Image files.", many=True), Source("palette", "Colours [x].", seeds=True)
    tasks = (
        Task("segment", "Masks by Tiny.", reads=(images, palette), makes=("mask",), options=Strength),
        Task("paint", "Paints.", reads=(images,), makes=("in-{strength}",), options=Strength),
    )
    system = System(name="tiny", title="Tiny", tasks=tasks, graphs=(), measured="")
    monkeypatch.setitem(sys.modules, "zellige.engine.systems.tiny", SimpleNamespace(SYSTEM=system))
    monkeypatch.setattr(systems, "SYSTEMS", (*systems.SYSTEMS, "tiny"))
    yield
    systems.system_of.cache_clear()


@pytest.mark.usefixtures("with_tiny")
def test_a_new_row_of_the_table_gets_its_verbs(run: Run) -> None:
    _, out, _ = run("--help")
    panels = [out.index(f"─ {panel} ─") for panel in ("OneGAN's tasks", "OneGAN's and Tiny's tasks", "Tiny's tasks")]
    assert out.index(" segment ") > panels[1] and out.index(" paint ") > panels[2]
    help = " ".join(run("paint", "--help")[1].replace("│", " ").split())
    assert "STEM-in-STRENGTH.png" in help and "How strong. 0 or more." in help


@pytest.mark.usefixtures("with_tiny")
def test_two_systems_share_a_verb_and_each_refuses_what_it_lacks(run: Run) -> None:
    help = " ".join(run("segment", "--help")[1].replace("│", " ").split())
    assert "OneGAN: Grey masks" in help and "Tiny: How strong" in help and "Colours [x]. Or seed:7" in help
    words = ("segment", BIRDS, "a.png", "--out", "new")
    refused(run, (*words, "--strength", 1), "segment of birds has no option --strength; it has --soft")
    refused(run, (*words, "--palette", "b.jpg"), "segment of birds reads no palette; leave out --palette")
    assert run(*words, "--soft", *CPU)[0] == 0


def test_people_get_a_table(run: Run) -> None:
    status, out, _ = run("segment", BIRDS, "a.png", "--out", "out", *CPU)
    assert status == 0 and "images_per_second" in out and "out/a-mask.png" in out
