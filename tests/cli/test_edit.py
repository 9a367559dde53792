import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from zellige.engine.library import load

from .command import BIRDS, CPU, Run, one_object, panorama, refused

PLACE = ("--region", "30,0,20,24", "--seed", 7)


def edit(*arguments: object, file: str = "a.tif", out: str | None = "b.tif") -> tuple[object, ...]:
    to = () if out is None else ("--out", out)
    return "panorama", "edit", file, *to, "--model", "./cylinder.safetensors", "--device", "cpu", *arguments


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory, model_file: Callable[[str], Path]) -> Path:
    path = tmp_path_factory.mktemp("panorama") / "a.tif"
    load(model_file("cylinder"), device="cpu", precision="fp32").panorama(path, 96, seed=3)
    return path


@pytest.fixture
def picture(folder: Path, rendered: Path) -> np.ndarray:
    shutil.copy(rendered, "a.tif")
    return np.asarray(Image.open("a.tif"))


def test_a_region_is_edited_into_a_new_file(run: Run, picture: np.ndarray) -> None:
    old = Path("a.tif").read_bytes()
    report = one_object(run(*edit(*PLACE, "--soften", 4, "--json")))
    made = np.asarray(Image.open("b.tif"))
    changed = (made != picture).any(axis=(0, 2)).nonzero()[0]
    assert 20 < len(changed) <= 20 + 2 * 4 + 8 and changed.min() >= 22 and changed.max() < 58
    assert report["region"] == [30, 0, 20, 24] and (report["seed"], report["soften"], report["edits"]) == (7, 4, 1)
    assert report["pixels_differing"] == 0 and report["out"] == "b.tif" and report["file"] == "a.tif"
    assert Path("a.tif").read_bytes() == old


def test_a_file_is_edited_in_place_when_asked(run: Run, folder: Path, picture: np.ndarray) -> None:
    there = set(folder.iterdir())
    assert one_object(run(*edit(*PLACE, "--in-place", "--json", out=None)))["out"] == "a.tif"
    assert one_object(run(*edit("--region=-10,0,20,24", "--seed", 8, "--in-place", "--json", out=None)))["edits"] == 2
    assert set(folder.iterdir()) == there
    assert (np.asarray(Image.open("a.tif")) != picture).any(axis=(0, 2))[[0, 40, 95]].all()


def test_an_edited_file_says_how_it_was_made(run: Run) -> None:
    assert run(*panorama("--size", "96x", "--seed", 3, *CPU, out="a.tif"))[0] == 0
    assert run(*edit(*PLACE))[0] == 0
    told = [json.loads(Image.open(name).tag_v2[270]) for name in ("a.tif", "b.tif")]
    assert {name: told[1][name] for name in told[1] if name != "scene"} == {
        name: told[0][name] for name in told[0] if name != "scene"
    }
    scenes = [json.loads(one["scene"]) for one in told]
    assert scenes[0] == {"size": [96, 24], "seed": 3, "runtime": "torch"}
    assert scenes[1] == scenes[0] | {"edits": [{"region": [30, 0, 20, 24], "soften": 16.0, "seed": 7}]}


def test_panoramas_are_rendered_as_before(run: Run) -> None:
    assert run(*panorama("--size", "32x"))[0] == 0
    status, out, _ = run("panorama", "edit", "--help")
    assert status == 0 and "--in-place" in out and "zellige panorama edit" in out
    status, out, _ = run("panorama", "--help")
    assert status == 0 and "zellige panorama edit" in out and "--compression" in out
    shutil.copy("cylinder.safetensors", "edit")
    refused(run, ("panorama", "./edit", "--out", "no.gif"), "no.gif has no known picture format")


REFUSED = {
    "no region": (("panorama", "edit", "a.tif", "--out", "b.tif"), "`zellige panorama edit --help` shows what it"),
    "garbage region": (edit("--region", "1,2", "--seed", 7), "'1,2' is no region; write X,Y,WIDTH,HEIGHT"),
    "no latent": (edit("--region", "30,0,20,24"), "an edit needs one new latent: give --seed, or a file"),
    "no output": (edit(*PLACE, out=None), "say where the edited picture goes: --out NEW, or --in-place"),
    "both outputs": (edit(*PLACE, "--in-place"), "--in-place goes without --out"),
    "existing output": (edit(*PLACE, out="older.csv"), "older.csv exists already"),
    "the same output": (edit(*PLACE, "--overwrite", out="./a.tif"), "would write a.tif, which is also the picture"),
    "another format": (edit(*PLACE, out="b.png"), "b.png must have the format of a.tif"),
    "unknown format": (edit(*PLACE, out="c.jpg"), "c.jpg has no known picture format"),
    "empty region": (edit("--region", "3,0,0,24", "--seed", 7), "a region of 0x24 is empty"),
    "region outside": (edit("--region", "0,5,20,24", "--seed", 7), "reaches outside of the 96x24 picture"),
    "half a height": (edit("--region", "30,0,20,12", "--seed", 7), "edge to edge along its height"),
    "negative softening": (edit(*PLACE, "--soften", -1), "--soften must be 0 or more"),
    "missing file": (edit(*PLACE, file="gone.tif"), "gone.tif cannot be read as a TIFF picture"),
    "no picture": (edit(*PLACE, file="text.png", out="b.png"), "text.png cannot be read as a PNG"),
    "a foreign picture": (edit(*PLACE, file="a.png", out="b.png"), "a.png does not say which model made it"),
    "a foreign format": (edit(*PLACE, file="b.jpg", out="c.jpg"), "b.jpg has no known picture format"),
    "a map": (edit(*PLACE, "--map", "a.png"), "a.tif was made without a map; leave out map"),
    "another system": (edit(*PLACE, "--model", BIRDS), "panorama needs a"),
    "a small budget": (edit(*PLACE, "--memory", "1MiB"), "--memory 1MiB is too small. Try --memory "),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_sentence_and_leaves_nothing(run: Run, picture: np.ndarray, case: str) -> None:
    refused(run, *REFUSED[case])


def test_the_model_is_found_or_asked_for(run: Run, picture: np.ndarray) -> None:
    sentence = "a.tif was made by the model cylinder, which is not bundled; say with --model where it is"
    refused(run, ("panorama", "edit", "a.tif", *PLACE, "--out", "b.tif"), sentence)
    Path("other.safetensors").write_bytes(Path("cylinder.safetensors").read_bytes() + b" ")
    status, _, err = run(*edit(*PLACE, "--model", "other.safetensors"))
    assert status == 2 and err.startswith("zellige: ")


def test_files_of_older_versions_are_refused(run: Run) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Description", json.dumps({"version": "zellige 0.0.9", "model": "cylinder", "seed": "3"}))
    Image.new("RGB", (96, 24)).save("old.png", pnginfo=info)
    sentence = "because the version that wrote it ('zellige 0.0.9') did not note it; render it again with"
    refused(run, edit(*PLACE, file="old.png", out="b.png"), sentence)
