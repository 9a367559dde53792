"""Files of panoramas that are edited."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from zellige.engine.panorama.canvas.canvas import Canvas
from zellige.engine.panorama.canvas.finished import opened
from zellige.engine.panorama.canvas.notes import notes_of
from zellige.engine.panorama.edits import bump_of, changed_by
from zellige.engine.panorama.record import Edit, SceneRecord, read_record
from zellige.engine.panorama.scene import Region
from zellige.engine.systems.coco_gan.editing import edited_scene
from zellige.engine.systems.coco_gan.model import CocoGan
from zellige.errors import BudgetError, DataError, MapError, OutputError, SizeError, TaskError

Model = Callable[..., CocoGan]
Made = Callable[..., tuple[CocoGan, Path, Region]]
SOFTEN = 9.0
# Model, width and height of the panorama, region, options of the panorama.
CASES: dict[str, tuple[str, tuple[int, int], Region, dict[str, Any]]] = {
    "still dense": ("dense", (32, 24), Region(9, 5, 3, 4), {}),
    "dense": ("dense", (1056, 24), Region(4, 800, 13, 120), {}),
    "dense torus": ("dense torus", (72, 48), Region(-5, 60, 20, 20), {}),
    "still dense torus": ("dense torus", (24, 16), Region(3, 3, 2, 2), {}),
    "dense at half steps": ("dense", (64, 24), Region(0, 30, 24, 9), {"blend": "half-step"}),
    "cylinder": ("cylinder", (1056, 24), Region(0, 520, 24, 40), {}),
    "torus": ("torus", (48, 32), Region(9, 7, 5, 12), {}),
    "torus across": ("torus", (48, 8), Region(0, 40, 8, 12), {}),
}
cases = pytest.mark.parametrize("case", CASES)


def all_pixels(path: Path) -> np.ndarray:
    with opened(path) as finished:
        return finished.pixels(Region(0, 0, finished.height, finished.width))


@pytest.fixture(scope="module")
def made(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A model, the file of a panorama of it, which stays as it is, and a region."""
    folder = tmp_path_factory.mktemp("panoramas")

    def panorama(case: str, ending: str = ".tif", **more: Any) -> tuple[CocoGan, Path, Region]:
        kind, (width, height), region, options = CASES[case]
        path = folder / f"{case}{'-'.join(map(str, more.values()))}{ending}"
        if not path.exists():
            model(kind).panorama(path, width, height, seed=3, **options, **more)
        return model(kind), path, region

    return panorama


def rendered(loaded: CocoGan, path: Path) -> np.ndarray:
    """The whole picture of the scene that a file tells."""
    record = read_record(path)[1]
    base = loaded.scene(*record.size, record.seed, blend=record.blend)
    scene = edited_scene(loaded, base, record)[0] if record.edits else base
    return loaded.render(scene, scene.whole)


@cases
def test_only_pixels_near_the_region_change_and_are_those_of_the_edited_scene(
    made: Made, tmp_path: Path, case: str
) -> None:
    loaded, old, region = made(case)
    report = loaded.edit(old, tmp_path / "b.tif", region, 7, soften=SOFTEN)
    before, after = all_pixels(old), all_pixels(tmp_path / "b.tif")
    assert (after == rendered(loaded, tmp_path / "b.tif")).all() and (before == rendered(loaded, old)).all()
    scene = edited_scene(loaded, loaded.scene(*CASES[case][1], 3), read_record(tmp_path / "b.tif")[1])[0]
    near = np.zeros(before.shape[:2], bool)
    for part in changed_by(scene, bump_of(scene, region, SOFTEN)):
        near[part.top : part.top + part.height, part.left : part.left + part.width] = True
    assert (before == after)[~near].all()
    rows, columns = (np.arange(start, start + side) for start, side in
                     ((region.top, region.height), (region.left, region.width)))  # fmt: skip
    there = np.s_[(rows % before.shape[0])[:, None], (columns % before.shape[1])[None]]
    assert np.abs(before[there].astype(int) - after[there]).mean() > 3
    assert report["pixels_differing"] == 0 and report["pixels_rendered"] == near.sum()
    assert report["tiles_rendered"] <= report["tiles"] and report["edits"] == 1


@pytest.mark.parametrize("case", ["still dense", "dense", "torus"])
def test_an_edited_file_can_be_edited(made: Made, tmp_path: Path, case: str) -> None:
    loaded, old, region = made(case)
    loaded.edit(old, tmp_path / "b.tif", region, 7, soften=SOFTEN)
    moved = replace(region, left=region.left + 3, top=region.top - 3)
    loaded.edit(tmp_path / "b.tif", tmp_path / "b.tif", moved, 8, soften=20)
    assert (all_pixels(tmp_path / "b.tif") == rendered(loaded, tmp_path / "b.tif")).all()
    edits = json.loads(notes_of(tmp_path / "b.tif")["scene"])["edits"]
    assert [edit["seed"] for edit in edits] == [7, 8] and edits[1]["region"][:2] == [moved.left, moved.top]
    # The picture's own latent brings its pixels back where no softened border lay.
    loaded.edit(tmp_path / "b.tif", tmp_path / "c.tif", Region(0, 0, old_size(old)[0], old_size(old)[1]), 3)
    if case == "still dense":
        assert (all_pixels(tmp_path / "c.tif") == all_pixels(old)).all()


def old_size(path: Path) -> tuple[int, int]:
    with opened(path) as finished:
        return finished.height, finished.width


@pytest.mark.parametrize(
    ("extension", "compression"),
    [(".tif", "jpeg"), (".zarr", None), (".png", None), (".dzi", "png")],
)
def test_every_format_can_be_edited(made: Made, tmp_path: Path, extension: str, compression: str | None) -> None:
    for package in {".zarr": ["zarr"], ".dzi": ["pyvips"], ".tif": ["imagecodecs"]}.get(extension, []):
        pytest.importorskip(package)
    loaded, old, region = made("dense", extension, compression=compression)
    new = tmp_path / f"b{extension}"
    loaded.edit(old, new, region, 7, soften=SOFTEN)
    away = np.abs(all_pixels(new).astype(int) - rendered(loaded, new))
    assert away.max() == 0 if compression != "jpeg" else away.mean() < 3
    assert (all_pixels(new) == all_pixels(old))[:, :512].all() and (all_pixels(new) != all_pixels(old)).any()
    record = read_record(new)[1]
    assert record.edits[0].where == region and notes_of(new)["model"] == "dense"


def test_untouched_tiles_of_jpeg_are_copied_and_touched_ones_are_compressed_once(made: Made, tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    loaded, old, region = made("dense", compression="jpeg", quality=80)
    loaded.edit(old, tmp_path / "b.tif", region, 7, soften=SOFTEN)
    kept = 0
    with opened(old) as before, opened(tmp_path / "b.tif") as after:
        for k in range(3):
            kept += before.encoded(k) == after.encoded(k)
    assert kept == 2 and notes_of(tmp_path / "b.tif")["quality"] == "80"
    # Blocks of 8 x 8 pixels whose pixels stay have the same coefficients.
    assert (all_pixels(old) == all_pixels(tmp_path / "b.tif"))[:, 512 : 800 - 120].all()


def test_the_border_shows_no_seam(model: Model, tmp_path: Path) -> None:
    loaded = model("dense")
    base, region = loaded.scene(960, 24, seed=3), Region(0, 304, 24, 400)
    old, seams = loaded.render(base, base.whole).astype(int), {"edited": [], "pasted": []}
    for seed in range(30, 36):
        edit = Edit(region=(304, 0, 400, 24), soften=16, seed=seed)
        record = SceneRecord(size=(960, 24), seed=3, runtime="torch", edits=(edit,))
        scene = edited_scene(loaded, base, record)[0]
        made = loaded.render(scene, scene.whole).astype(int)
        pasted = np.where((np.arange(960) // 8 >= 38) & (np.arange(960) < 704), made.swapaxes(1, 2), old.swapaxes(1, 2))
        for name, picture in (("edited", made), ("pasted", pasted.swapaxes(1, 2))):
            steps = np.abs(np.diff(picture, axis=1)).mean(axis=(0, 2))
            usual = steps[7::8].mean()  # at borders of patches
            seams[name].append(steps[[region.left - 1, region.left + 399]].mean() / usual)
    assert np.mean(seams["edited"]) < 1.3 < 1.8 < np.mean(seams["pasted"]), seams


def test_a_window_is_edited_in_pixels_of_the_panorama(model: Model, tmp_path: Path) -> None:
    loaded, old, new = model("dense"), tmp_path / "a.tif", tmp_path / "b.tif"
    loaded.panorama(old, 256, seed=3, region=Region(3, 50, 18, 61))
    loaded.edit(old, new, Region(0, 100, 24, 20), 7, soften=SOFTEN)
    assert (all_pixels(new) == rendered(loaded, new)[3:21, 50:111]).all()
    with pytest.raises(SizeError, match="has the part 61x18 at \\(50, 3\\) of its panorama, and the region lies outs"):
        loaded.edit(old, new, Region(0, 200, 24, 8), 7, soften=SOFTEN)


@pytest.fixture
def mapped(model: Model, tmp_path: Path) -> dict[str, Any]:
    pixels = np.zeros((2, 4, 3), np.uint8)
    pixels[:, 1:] = 255
    Image.fromarray(pixels).save(tmp_path / "map.png")
    (tmp_path / "map.toml").write_text('["#000000"]\nseed = 7\n["#ffffff"]\nseed = 8\n')
    files = {"map": tmp_path / "map.png", "legend": tmp_path / "map.toml"}
    model("dense").panorama(tmp_path / "a.tif", 64, seed=3, **files)
    return files


def test_a_picture_of_a_map_can_be_edited(model: Model, tmp_path: Path, mapped: dict[str, Any]) -> None:
    loaded, region = model("dense"), Region(4, 30, 12, 9)
    loaded.edit(tmp_path / "a.tif", tmp_path / "b.tif", region, 9, soften=SOFTEN)
    moved = {name: file.rename(file.with_name(f"moved{file.suffix}")) for name, file in mapped.items()}
    with pytest.raises((DataError, MapError)):
        loaded.edit(tmp_path / "b.tif", tmp_path / "c.tif", region, 9)
    loaded.edit(tmp_path / "a.tif", tmp_path / "c.tif", region, 9, soften=SOFTEN, **moved)
    assert (all_pixels(tmp_path / "b.tif") == all_pixels(tmp_path / "c.tif")).all()
    moved["legend"].write_text('["#000000"]\nseed = 7\n["#ffffff"]\nseed = 9\n')
    with pytest.raises(MapError, match="was made with another legend than .*moved.toml is now"):
        loaded.edit(tmp_path / "a.tif", tmp_path / "d.tif", region, 9, **moved)


def test_a_latent_can_come_from_a_file(made: Made, tmp_path: Path) -> None:
    loaded, old, region = made("still dense")
    np.save(tmp_path / "z.npy", np.full(6, 0.3, np.float32))
    loaded.edit(old, tmp_path / "b.tif", region, latents=tmp_path / "z.npy", soften=SOFTEN)
    assert (all_pixels(tmp_path / "b.tif") == rendered(loaded, tmp_path / "b.tif")).all()
    assert len(read_record(tmp_path / "b.tif")[1].edits[0].latent) == 6
    for both in ({}, {"seed": 1, "latents": tmp_path / "z.npy"}):
        with pytest.raises(TaskError, match="needs one new latent"):
            loaded.edit(old, tmp_path / "c.tif", region, **both)
    np.save(tmp_path / "z.npy", np.zeros(5))
    with pytest.raises(MapError, match="must hold one vector of 6 numbers"):
        loaded.edit(old, tmp_path / "c.tif", region, latents=tmp_path / "z.npy")


def test_a_file_that_is_not_what_its_scene_gives_is_warned_of(
    model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loaded, old = model("dense"), tmp_path / "a.png"
    loaded.panorama(old, 320)
    picture = all_pixels(old)
    picture[0, 0] ^= 4
    text = Image.open(old).info["Description"]
    info = PngImagePlugin.PngInfo()
    info.add_text("Description", text)
    Image.fromarray(picture).save(old, pnginfo=info)
    report = loaded.edit(old, tmp_path / "b.png", Region(0, 160, 24, 2), 7, soften=0)
    assert report["pixels_differing"] == 1
    assert "1 of 7680 pixels of a tile differ, by up to 4 levels" in caplog.text
    assert (all_pixels(tmp_path / "b.png")[0, 0] == picture[0, 0]).all()  # what is outside stays as it was


def test_a_failure_leaves_the_old_file_and_nothing_else(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, old, region = made("cylinder")
    old = shutil.copy(old, tmp_path / "a.tif")
    before = old.read_bytes()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Canvas, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            loaded.edit(old, old, region, 7)
    with pytest.raises(BudgetError):
        loaded.edit(old, old, region, 7, memory="1MiB")
    assert old.read_bytes() == before and list(tmp_path.iterdir()) == [old]


def test_steps_that_the_picture_does_not_have_are_refused(made: Made, tmp_path: Path) -> None:
    loaded, old, _ = made("cylinder")
    with pytest.raises(TaskError, match="edge to edge along its height.*all of the height, y = 0 and 24 pixels"):
        loaded.edit(old, tmp_path / "b.tif", Region(4, 520, 10, 40), 7)
    old = tmp_path / "a.tif"
    loaded.panorama(old, 32, seed=3)
    with pytest.raises(TaskError, match="edge to edge along its width"):
        loaded.edit(old, tmp_path / "b.tif", Region(0, 4, 24, 10), 7)
    loaded.edit(old, tmp_path / "b.tif", Region(0, 0, 24, 32), 7)
    assert (all_pixels(tmp_path / "b.tif") == loaded.generate(1, seed=7)[0]).all()


def test_other_models_and_precisions_are_refused(made: Made, model: Model, tmp_path: Path) -> None:
    _, old, region = made("still dense")
    with pytest.raises(TaskError, match="was made by another model than .*torus.safetensors"):
        model("dense torus").edit(old, tmp_path / "b.tif", region, 7)
    with pytest.raises(TaskError, match="was made in fp32, and dense is loaded in bf16; load it in fp32"):
        model("dense", "bf16").edit(old, tmp_path / "b.tif", region, 7)


def test_files_that_do_not_tell_their_scene_are_refused(made: Made, tmp_path: Path) -> None:
    loaded, old, region = made("still dense", ".png")
    picture, told = Image.open(old), json.loads(Image.open(old).info["Description"])
    for change, sentence in (
        (None, "does not say which model made it"),
        ({"scene": None}, "does not say of which scene it is, because the version that wrote it ('zellige "),
        ({"scene": "{}"}, "describes its scene in a way that is not understood (size: Field required)"),
        ({"scene": "{"}, "describes its scene in a way that is not understood (all of it: Invalid JSON"),
        ({"model_sha256": None}, "does not tell the SHA-256 of its model"),
    ):
        info = PngImagePlugin.PngInfo()
        if change is not None:
            notes = {name: text for name, text in (told | change).items() if text is not None}
            info.add_text("Description", json.dumps(notes))
        picture.save(tmp_path / "b.png", pnginfo=info)
        with pytest.raises((DataError, TaskError)) as caught:
            loaded.edit(tmp_path / "b.png", tmp_path / "c.png", region, 7)
        assert sentence in str(caught.value) and "render it again" in str(caught.value)


def test_formats_that_do_not_fit_are_refused(made: Made, tmp_path: Path) -> None:
    loaded, old, region = made("still dense")
    with pytest.raises(OutputError, match="must have the format of .*dense.tif, whose tiles are copied"):
        loaded.edit(old, tmp_path / "b.png", region, 7)
    with pytest.raises(OutputError, match="has no known picture format"):
        loaded.edit(tmp_path / "a.gif", tmp_path / "b.gif", region, 7)
    loaded.edit(old, tmp_path / "b.tiff", region, 7)
    with Image.open(old) as picture:
        picture.crop((0, 0, 16, 16)).save(tmp_path / "c.tif", tiffinfo={270: json.dumps(notes_of(old))})
    with pytest.raises(DataError, match="another program has written it"):
        loaded.edit(tmp_path / "c.tif", tmp_path / "d.tif", region, 7)


def test_a_record_is_what_was_written() -> None:
    record = SceneRecord(size=(64, 24), seed=3, runtime="torch", region=(1, 2, 3, 4), blend="half-step")
    text = record.note()["scene"]
    assert SceneRecord.model_validate_json(text) == record and record.part == Region(2, 1, 4, 3)
    assert "edits" not in text and "map" not in text
