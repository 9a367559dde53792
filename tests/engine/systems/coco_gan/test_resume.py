"""Panoramas of real processes that are killed, and of runs that differ from the one that is resumed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from zellige.engine.layers.convolutions import CodedConv, PaddedConv, UpConv
from zellige.engine.library import load
from zellige.engine.panorama import journal as journals
from zellige.engine.panorama.canvas import is_unfinished
from zellige.engine.panorama.journal import journal_of
from zellige.engine.panorama.scene import Region
from zellige.engine.systems.coco_gan.model import CocoGan
from zellige.errors import BudgetError, OutputError, ResumeError

from ...rewrite.timed import subject

pytest.importorskip("tifffile")
Model = Callable[..., CocoGan]
WIDTH = 32 * 160  # ten tiles
SMALL = "32MiB"


class Stop(Exception):
    """Ends a run in the middle."""


@pytest.fixture(autouse=True)
def a_line_a_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "_SECONDS", 0)


def stop(done: int, total: int) -> None:
    if done > total / 2:
        raise Stop


def stopped(loaded: CocoGan, out: Path, **settings: Any) -> None:
    """Leave a half-made panorama, in several chunks."""
    with pytest.raises(Stop):
        loaded.panorama(out, **{"width": WIDTH, "memory": SMALL, "resume": True} | settings, progress=stop)
    assert is_unfinished(out)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("kind", ["cylinder", "dense"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stopped_panorama_is_resumed_to_the_same_bytes(
    model: Model, tmp_path: Path, kind: str, precision: str
) -> None:
    loaded = model(kind, precision)
    stopped(loaded, tmp_path / "a.tif", seed=np.int64(5))
    shown: list[tuple[int, int]] = []
    for left in (tmp_path / "a.tif", tmp_path / "b.tif"):
        shown.clear()
        report = loaded.panorama(left, WIDTH, memory="256MiB", seed=5, resume=left.stem == "a",
                                 progress=lambda *done: shown.append(done))  # fmt: skip
        assert (report["pixels_resumed"] > 0) == (left.stem == "a")
        assert shown[-1] == (24 * WIDTH, 24 * WIDTH) and shown[0][0] > report["pixels_resumed"]
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.tif", "b.tif"]


KILLED = """
import os, random, signal, sys, time, traceback
from pathlib import Path
from zellige.engine.library import load
from zellige.engine.panorama import journal
from zellige.engine.panorama.journal import journal_of

journal._SECONDS = 0
file, out, width, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
model, chance = load(file, device="cpu", precision="fp32"), random.Random(seed)

def begun(resume):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            model.panorama(out, width, memory="512MiB", seed=5, resume=resume)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child

kills, lines = 0, 0
for run in range(5):
    child, enough = begun(run > 0), lines + chance.randint(1, 4)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
        lines = journal_of(out).read_bytes().count(b"\\n") if journal_of(out).exists() else 0
        if lines > enough:
            break
        time.sleep(0.0005)
    time.sleep(chance.random() * 0.03)
    os.kill(child, signal.SIGKILL)
    kills += os.waitpid(child, 0)[1] == signal.SIGKILL
    if out.exists():
        break
status = 0 if out.exists() else os.waitpid(begun(True), 0)[1]
print(kills, status)
"""


@pytest.mark.parametrize(("name", "package"), [("a.tif", "tifffile"), ("a.zarr", "zarr"), ("a.dzi", "pyvips")])
def test_a_killed_process_leaves_a_panorama_that_is_resumed_to_the_same_bytes(
    model_file: Callable[[str], Path], tmp_path: Path, name: str, package: str
) -> None:
    pytest.importorskip(package)
    (tmp_path / "killed").mkdir()
    (tmp_path / "whole").mkdir()
    width = WIDTH * 4
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(model_file("cylinder")), str(tmp_path / "killed" / name), str(width), name],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    kills, status = map(int, done.stdout.split())
    assert kills >= 2 and status == 0, done.stderr
    assert "is begun anew" not in done.stderr  # the first run was killed too, and did not know that it would be resumed
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = load(model_file("cylinder"), device="cpu", precision="fp32")
        model.panorama(tmp_path / "whole" / name, width, memory="512MiB", seed=5)
    finally:
        torch.set_num_threads(threads)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("other", "key"),
    [
        ({"seed": 6}, "seed"),
        ({"width": WIDTH * 2}, "size"),
        ({"region": Region(0, 0, 24, 99)}, "region"),
        ({"map": "blue"}, "map"),
        ({"compression": "none"}, "compression"),
    ],
)
def test_another_panorama_is_refused_and_the_unfinished_one_stays(
    model: Model, tmp_path: Path, other: dict[str, Any], key: str
) -> None:
    if "map" in other:
        other = mapped(tmp_path, "blue")
    stopped(model("cylinder"), tmp_path / "a.tif")
    before = contents(tmp_path)
    with pytest.raises(ResumeError, match=f"was begun with the {key} .* and cannot go on with"):
        model("cylinder").panorama(tmp_path / "a.tif", **{"width": WIDTH, "memory": SMALL, "resume": True} | other)
    assert contents(tmp_path) == before


def mapped(folder: Path, colour: str, seed: int = 1) -> dict[str, Any]:
    Image.new("RGB", (4, 4), colour).save(folder / "map.png")
    legend = "".join(f'["{name}"]\nseed = {number}\n' for name, number in (("#ff0000", 0), ("#0000ff", seed)))
    (folder / "legend.toml").write_text(legend)
    return {"map": folder / "map.png", "legend": folder / "legend.toml"}


@pytest.mark.parametrize(
    ("other", "key"),
    [({"colour": "red"}, "map"), ({"seed": 2}, "legend"), ({"soften": 3}, "soften"), ({"vary": 0.5}, "vary")],
)
def test_another_map_is_refused(model: Model, tmp_path: Path, other: dict[str, Any], key: str) -> None:
    files = {name: value for name, value in other.items() if name in ("colour", "seed")}
    stopped(model("cylinder"), tmp_path / "a.tif", **mapped(tmp_path, "blue"))
    options = mapped(tmp_path, **{"colour": "blue"} | files) | {k: v for k, v in other.items() if k not in files}
    with pytest.raises(ResumeError, match=f"was begun with the {key} "):
        model("cylinder").panorama(tmp_path / "a.tif", WIDTH, memory=SMALL, resume=True, **options)
    report = model("cylinder").panorama(
        tmp_path / "a.tif", WIDTH, memory=SMALL, resume=True, **mapped(tmp_path, "blue")
    )
    assert report["pixels_resumed"] > 0


@pytest.mark.parametrize(("kind", "precision", "key"), [("dense", "fp32", "model"), ("cylinder", "bf16", "precision")])
def test_another_model_or_precision_is_refused(
    model: Model, tmp_path: Path, kind: str, precision: str, key: str
) -> None:
    stopped(model("cylinder"), tmp_path / "a.tif")
    with pytest.raises(ResumeError, match=f"was begun with the {key} "):
        model(kind, precision).panorama(tmp_path / "a.tif", WIDTH, memory=SMALL, resume=True)


def test_another_version_of_torch_is_refused(model: Model, tmp_path: Path) -> None:
    stopped(model("cylinder"), tmp_path / "a.tif")
    journal = journal_of(tmp_path / "a.tif")
    journal.write_text(journal.read_text().replace(f"torch {torch.__version__}", "torch 1.0"))
    with pytest.raises(ResumeError, match="was begun with the software zellige .* torch 1.0 and cannot go on with"):
        model("cylinder").panorama(tmp_path / "a.tif", WIDTH, memory=SMALL, resume=True)


def first_line(out: Path) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(journal_of(out).read_text().splitlines()[0])
    return line


def test_a_resume_takes_over_the_forms_of_layers_and_the_number_of_threads(
    model_file: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZELLIGE_CACHE", str(tmp_path / "cache"))
    # Every layer runs in a rewrite, whatever is faster here.
    slow = (UpConv, CodedConv, PaddedConv, torch.nn.Conv2d)
    monkeypatch.setattr(subject, "_milliseconds", lambda form, inputs: 2.0 if type(form) in slow else 1.0)
    rewritten, trained = (load(model_file("dense"), "cpu", "fp32", rewrite=choice) for choice in (True, False))
    for name, loaded in (("rewritten", rewritten), ("trained", trained)):
        loaded.panorama(tmp_path / f"{name}.tif", WIDTH, memory=SMALL)
    assert (tmp_path / "rewritten.tif").read_bytes() != (tmp_path / "trained.tif").read_bytes()
    seen: list[int] = []
    for begins, resumes in ((rewritten, trained), (trained, rewritten)):
        out = tmp_path / "a.tif"
        stopped(begins, out)
        forms = first_line(out)["forms"]
        assert forms == ({choice.layer: choice.form for choice in rewritten.choices} if begins is rewritten else None)
        before = torch.get_num_threads()
        torch.set_num_threads(before + 1)
        try:
            seen.clear()
            report = resumes.panorama(out, WIDTH, memory=SMALL, resume=True,
                                      progress=lambda *done: seen.append(torch.get_num_threads()))  # fmt: skip
            assert torch.get_num_threads() == before + 1 and set(seen) == {before}
        finally:
            torch.set_num_threads(before)
        assert report["pixels_resumed"] > 0
        name = "rewritten" if begins is rewritten else "trained"
        assert out.read_bytes() == (tmp_path / f"{name}.tif").read_bytes()


@pytest.mark.parametrize("forms", [{"none": "winograd"}, {"to_image": "such a form"}, {"": "winograd"}])
def test_forms_that_the_model_lacks_are_refused(model: Model, tmp_path: Path, forms: dict[str, str]) -> None:
    out = tmp_path / "a.tif"
    stopped(model("cylinder"), out)
    first, rest = journal_of(out).read_text().split("\n", 1)
    journal_of(out).write_text(json.dumps(json.loads(first) | {"forms": forms}) + "\n" + rest)
    with pytest.raises(ResumeError, match=r"was begun with other rewrites, and the layer .* has no form"):
        model("cylinder").panorama(out, WIDTH, memory=SMALL, resume=True)


def test_a_resume_keeps_its_batches_and_on_a_cpu_takes_others_if_it_must(model: Model, tmp_path: Path) -> None:
    loaded, out = model("cylinder"), tmp_path / "a.tif"
    loaded.panorama(tmp_path / "whole.tif", WIDTH, memory="256MiB")
    stopped(loaded, out, memory="256MiB")
    begun = first_line(out)["batch"]
    with pytest.raises(BudgetError):
        loaded.panorama(out, WIDTH, memory="1MiB", resume=True)
    assert is_unfinished(out)
    with pytest.raises(Stop):
        loaded.panorama(out, WIDTH, memory="1GiB", resume=True, progress=stop)
    smallest = loaded.panorama(out, WIDTH, memory=SMALL, resume=True)["batch"]
    assert smallest <= begun
    assert out.read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_png_cannot_be_resumed(model: Model, tmp_path: Path) -> None:
    with pytest.raises(
        OutputError, match=r"a\.png cannot be resumed, because .* Name it \.tif, \.tiff, \.zarr or \.dzi"
    ):
        model("cylinder").panorama(tmp_path / "a.png", resume=True)
    assert list(tmp_path.iterdir()) == []


def test_a_finished_panorama_leaves_nothing_and_a_stopped_one_only_if_it_resumes(model: Model, tmp_path: Path) -> None:
    loaded = model("cylinder")
    for error in (Stop, KeyboardInterrupt):

        def fail(done: int, total: int, error: type[BaseException] = error) -> None:
            if done > total / 2:
                raise error

        with pytest.raises(error):
            loaded.panorama(tmp_path / "a.tif", WIDTH, memory=SMALL, progress=fail)
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(error):
            loaded.panorama(tmp_path / "a.tif", WIDTH, memory=SMALL, progress=fail, resume=True)
        assert is_unfinished(tmp_path / "a.tif")
        loaded.panorama(tmp_path / "a.tif", WIDTH, memory=SMALL, resume=True)
        assert [file.name for file in tmp_path.iterdir()] == ["a.tif"]
        (tmp_path / "a.tif").unlink()


def test_pixels_of_a_resumed_picture_are_those_of_the_scene(model: Model, tmp_path: Path) -> None:
    tifffile, loaded = pytest.importorskip("tifffile"), model("cylinder")
    stopped(loaded, tmp_path / "a.tif", seed=2)
    loaded.panorama(tmp_path / "a.tif", WIDTH, memory=SMALL, seed=2, resume=True)
    scene = loaded.scene(WIDTH, seed=2)
    assert (tifffile.imread(tmp_path / "a.tif") == loaded.render(scene, scene.whole)).all()
    assert np.asarray(tifffile.imread(tmp_path / "a.tif")).shape == (24, WIDTH, 3)
