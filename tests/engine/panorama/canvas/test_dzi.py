import json
import math
import os
import re
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zellige.engine.panorama.canvas import open_canvas, paths_of
from zellige.errors import MissingExtraError, OutputError, SizeError

from .painting import noise, paint, run_to_the_end, threads_left

pyvips = pytest.importorskip("pyvips")
pytest.importorskip("tifffile")


def assembled(path: Path, picture: np.ndarray, ending: str = "png") -> np.ndarray:
    """The largest level, from its tiles alone."""
    found = np.empty_like(picture)
    folder = path.with_name(f"{path.stem}_files") / str(math.ceil(math.log2(max(picture.shape[:2]))))
    for tile in folder.iterdir():
        column, row = map(int, re.fullmatch(rf"(\d+)_(\d+)\.{ending}", tile.name).groups())  # type: ignore[union-attr]
        pixels = np.asarray(Image.open(tile))
        top, left = row * 256, column * 256
        found[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return found


@pytest.mark.parametrize(("height", "width"), [(1, 1), (256, 512), (521, 1031)])
def test_the_largest_level_is_the_picture_in_tiles_without_overlap(tmp_path: Path, height: int, width: int) -> None:
    picture = noise(height, width)
    paint(tmp_path / "a.dzi", picture, compression="png")
    assert (assembled(tmp_path / "a.dzi", picture) == picture).all()
    description = (tmp_path / "a.dzi").read_text()
    for part in ('Overlap="0"', 'TileSize="256"', f'Height="{height}"', f'Width="{width}"', 'Format="png"'):
        assert part in description


def test_levels_go_down_to_one_pixel_as_viewers_count_them(tmp_path: Path) -> None:
    paint(tmp_path / "a.dzi", noise(300, 700))
    levels = {entry.name for entry in (tmp_path / "a_files").iterdir() if entry.is_dir()}
    assert levels == {str(k) for k in range(11)}
    assert Image.open(tmp_path / "a_files" / "0" / "0_0.jpg").size == (1, 1)
    assert Image.open(tmp_path / "a_files" / "9" / "0_0.jpg").size == (256, 150)


@pytest.mark.parametrize(("quality", "bound"), [(50, 30), (None, 10)])
def test_jpeg_keeps_the_colours_of_edges(tmp_path: Path, quality: int | None, bound: int) -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, ::2] = (255, 0, 0)
    picture[:, 1::2] = (0, 0, 255)
    paint(tmp_path / "a.dzi", picture, quality=quality)
    assert np.abs(assembled(tmp_path / "a.dzi", picture, "jpg").astype(int) - picture).max() < bound


def test_an_older_pyramid_is_replaced_as_a_whole(tmp_path: Path) -> None:
    paint(tmp_path / "a.dzi", noise(600, 1030), compression="png")
    picture = noise(20, 30)
    paint(tmp_path / "a.dzi", picture, compression="png")
    assert sorted(entry.name for entry in (tmp_path / "a_files").iterdir() if entry.is_dir()) == [*"012345"]
    assert (assembled(tmp_path / "a.dzi", picture) == picture).all()
    assert (
        sorted(entry.name for entry in tmp_path.iterdir())
        == ["a.dzi", "a_files"]
        == [path.name for path in paths_of(tmp_path / "a.dzi")]
    )


@pytest.mark.parametrize("theirs", ["0/0_0.jpg", "notes.txt", "zellige.json"])
def test_a_folder_of_tiles_that_is_not_ours_is_refused_and_kept(tmp_path: Path, theirs: str) -> None:
    file = tmp_path / "a_files" / theirs
    file.parent.mkdir(parents=True)
    file.write_text("theirs")
    with pytest.raises(OutputError, match="a_files is there already; remove it, or give another name"):
        open_canvas(tmp_path / "a.dzi", 64, 64, patch=8)
    assert file.read_text() == "theirs" and not (tmp_path / "a.dzi").exists()


def test_a_failed_rendering_leaves_the_older_pyramid(tmp_path: Path) -> None:
    picture = noise(20, 30)
    paint(tmp_path / "a.dzi", picture, compression="png")

    def render() -> None:
        with open_canvas(tmp_path / "a.dzi", 5120, 512, patch=64) as canvas:
            canvas.write(noise(512, 512))
            raise KeyError("the renderer's own")

    with pytest.raises(KeyError, match="the renderer's own"):
        run_to_the_end(render)
    assert (assembled(tmp_path / "a.dzi", picture) == picture).all()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.dzi", "a_files"] and threads_left() == []


def test_a_pyramid_that_cannot_take_its_name_leaves_the_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = noise(20, 30)
    paint(tmp_path / "a.dzi", picture, compression="png")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OutputError, match="No space left"):
        patch.setattr(os, "fsync", full)
        paint(tmp_path / "a.dzi", noise(600, 700))
    assert (assembled(tmp_path / "a.dzi", picture) == picture).all()
    assert 'Width="30"' in (tmp_path / "a.dzi").read_text()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.dzi", "a_files"]


def test_a_disk_that_is_full_while_libvips_writes_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(picture: object, path: str, **options: object) -> None:
        raise pyvips.Error("unable to call dzsave", "write error: No space left on device\n")

    monkeypatch.setattr(pyvips.Image, "dzsave", full)
    with pytest.raises(OutputError, match=r"a\.dzi cannot be written: .*No space left on device"):
        paint(tmp_path / "a.dzi", noise(20, 30))
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_libvips_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, kill, killed, ended = pyvips.Image.dzsave, pyvips.Image.set_kill, threading.Event(), []

    def at_work(picture: pyvips.Image, progress: object) -> None:
        if not killed.is_set():
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            killed.wait(10)

    def interrupted(picture: pyvips.Image, path: str, **options: object) -> None:
        picture.set_progress(True)
        picture.signal_connect("eval", at_work)
        with pytest.raises(pyvips.Error):
            plain(picture, path, **options)
        ended.append(True)

    monkeypatch.setattr(pyvips.Image, "dzsave", interrupted)
    monkeypatch.setattr(pyvips.Image, "set_kill", lambda picture, flag: (kill(picture, flag), killed.set()))
    with pytest.raises(KeyboardInterrupt):
        paint(tmp_path / "a.dzi", noise(1100, 1100))
    assert ended == [True] and list(tmp_path.iterdir()) == [] and threads_left() == []


def test_the_folder_holds_what_the_caller_knows(tmp_path: Path) -> None:
    paint(tmp_path / "a.dzi", noise(20, 30), metadata={"seed": "3"})
    known = json.loads((tmp_path / "a_files" / "zellige.json").read_text())["zellige"]
    assert known["seed"] == "3" and known["version"].startswith("zellige ")


def test_a_picture_that_libvips_does_not_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SizeError, match=r"at most 100000000 pixels a side. Write a\.zarr instead"):
        open_canvas(tmp_path / "a.dzi", 10**8 + 1, 64, patch=8)


@pytest.mark.parametrize(("package", "extra"), [("pyvips", "dzi"), ("tifffile", "tiff")])
def test_a_missing_package_names_its_extra(
    tmp_path: Path, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"zellige\[{extra}\]"):
        open_canvas(tmp_path / "a.dzi", 64, 64, patch=8)
    assert list(tmp_path.iterdir()) == []
