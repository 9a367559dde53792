"""Pictures that were stopped in the middle and resumed, in every format, without a model."""

import errno
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zellige.engine.files.atomic import partial_of
from zellige.engine.panorama import journal as journals
from zellige.engine.panorama.canvas import FORMATS, is_unfinished, open_canvas, paths_of, resumable
from zellige.engine.panorama.canvas.canvas import Canvas
from zellige.engine.panorama.journal import Journal, journal_of
from zellige.errors import OutputError, ResumeError

from .painting import needs, noise, paint, run_to_the_end, threads_left, tiles

pytest.importorskip("tifffile")
HEIGHT, WIDTH = 1100, 1600  # 3 x 4 tiles
FILES = [("a.tif", "deflate"), ("a.tif", "none"), ("a.tif", "zstd"), ("a.tif", "jpeg"),
         ("a.zarr", "zstd"), ("a.zarr", "none"), ("a.dzi", "jpeg"), ("a.dzi", "png")]  # fmt: skip
every_file = pytest.mark.parametrize(("name", "compression"), FILES)


class Stop(Exception):
    """Ends a run in the middle."""


@pytest.fixture(autouse=True)
def a_line_a_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "_SECONDS", 0)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return noise(HEIGHT, WIDTH) // 32


def run(
    path: Path, picture: np.ndarray, compression: str, stop: int = 99, *, resume: bool = True, **settings: Any
) -> Canvas:
    """Paint from where an earlier run ended, to the end or until so many tiles are there."""
    if compression in ("zstd", "jpeg") and path.suffix == ".tif":
        pytest.importorskip("imagecodecs")
    needs(path.suffix)
    settings = {"metadata": {"seed": "3"}, "cyclic": (False, True)} | settings | {"compression": compression}
    canvas = open_canvas(path, WIDTH, HEIGHT, patch=64, **settings)
    assert canvas.partial is not None
    with Journal(path, {}, resume=resume).opened(canvas.partial, canvas.facts) as journal:
        canvas.follow(journal)
        if journal.resumed:
            canvas.metadata = journal.metadata
        with canvas:
            journal.begin((1, 1), 1, 1, 4, canvas.metadata)
            for k, tile in enumerate(tiles(picture, canvas.tile)):
                if k == stop:
                    raise Stop
                if k >= canvas.done:
                    canvas.write(tile)
    return canvas


def stopped(*arguments: Any, **settings: Any) -> None:
    with pytest.raises(Stop):
        run_to_the_end(lambda: run(*arguments, **settings) and None)
    assert threads_left() == []


def contents(path: Path) -> dict[str, bytes]:
    """The bytes of every file of a picture, and of all that lies beside it."""
    return {str(file.relative_to(path.parent)): file.read_bytes() for file in path.parent.rglob("*") if file.is_file()}


def painted(folder: Path, name: str, picture: np.ndarray, compression: str, **settings: Any) -> dict[str, bytes]:
    """The files of a picture that no one stopped."""
    (folder / "whole").mkdir()
    paint(folder / "whole" / name, picture, compression=compression,
          **{"metadata": {"seed": "3"}, "cyclic": (False, True)} | settings)  # fmt: skip
    return contents(folder / "whole" / name)


@pytest.fixture
def path(tmp_path: Path) -> Callable[[str], Path]:
    (tmp_path / "resumed").mkdir()
    return lambda name: tmp_path / "resumed" / name


@every_file
def test_a_picture_that_was_stopped_again_and_again_has_the_same_bytes(
    tmp_path: Path, path: Callable[[str], Path], picture: np.ndarray, name: str, compression: str
) -> None:
    done = []
    for stop in (3, 5, 5, 8, 11, 99):
        if stop == 99:
            done.append(run(path(name), picture, compression).done)
        else:
            stopped(path(name), picture, compression, stop)
            assert is_unfinished(path(name)) and not path(name).exists()
    assert 0 < done[-1] <= 11
    assert contents(path(name)) == painted(tmp_path, name, picture, compression)


@every_file
def test_metadata_are_those_with_which_the_picture_was_begun(
    tmp_path: Path, path: Callable[[str], Path], picture: np.ndarray, name: str, compression: str
) -> None:
    stopped(path(name), picture, compression, 5)
    run(path(name), picture, compression, metadata={"seed": "3", "command": "a longer one"})
    assert contents(path(name)) == painted(tmp_path, name, picture, compression)


@pytest.mark.parametrize("name", ["a.tif", "a.zarr", "a.dzi"])
def test_a_run_that_does_not_resume_cleans_up_and_replaces(
    tmp_path: Path, path: Callable[[str], Path], picture: np.ndarray, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    compression = FORMATS[path(name).suffix].compressions[0]
    stopped(path(name), picture, compression, 7, resume=False)
    assert list(path(name).parent.iterdir()) == []
    stopped(path(name), noise(HEIGHT, WIDTH, seed=1), compression, 9)
    run(path(name), picture, compression, resume=False)
    assert f"{name} was unfinished and is begun anew; --resume would go on with it" in caplog.text
    assert contents(path(name)) == painted(tmp_path, name, picture, compression)


@pytest.mark.parametrize(
    ("name", "compression", "other"),
    [
        ("a.tif", "deflate", {"compression": "none"}),
        ("a.tif", "jpeg", {"quality": 50}),
        ("a.zarr", "zstd", {"compression": "none"}),
        ("a.zarr", "zstd", {"cyclic": (True, True)}),
        ("a.dzi", "jpeg", {"compression": "png"}),
    ],
)
def test_another_file_of_the_same_picture_is_refused(
    path: Callable[[str], Path], picture: np.ndarray, name: str, compression: str, other: dict[str, Any]
) -> None:
    stopped(path(name), picture, compression, 5)
    before = contents(path(name))
    with pytest.raises(ResumeError, match=r"was begun with the \w+ .* and cannot go on with"):
        run(path(name), picture, **{"compression": compression} | other)
    assert contents(path(name)) == before


def test_the_tiles_behind_the_journal_are_made_again(
    tmp_path: Path, path: Callable[[str], Path], picture: np.ndarray
) -> None:
    stopped(path("a.tif"), picture, "deflate", 6)
    with partial_of(path("a.tif")).open("ab") as file:
        file.write(b"half a tile")
    assert run(path("a.tif"), picture, "deflate").done > 0
    assert contents(path("a.tif")) == painted(tmp_path, "a.tif", picture, "deflate")


def test_half_written_shards_and_levels_are_made_again(
    tmp_path: Path, path: Callable[[str], Path], picture: np.ndarray
) -> None:
    stopped(path("a.zarr"), picture, "zstd", 6)
    root = partial_of(path("a.zarr"))
    for part in ("0/c/0/2/3", "0/c/0/2/3.abc.partial", "0/c/0/0/0.abc.partial", "1/c/0/0/0", "0/c/0/9/9"):
        (root / part).parent.mkdir(parents=True, exist_ok=True)
        (root / part).write_bytes(b"half")
    run(path("a.zarr"), picture, "zstd")
    assert contents(path("a.zarr")) == painted(tmp_path, "a.zarr", picture, "zstd")


def test_black_shards_are_written_by_a_resumed_run_too(tmp_path: Path, path: Callable[[str], Path]) -> None:
    black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    stopped(path("a.zarr"), black, "zstd", 6)
    run(path("a.zarr"), black, "zstd")
    assert contents(path("a.zarr")) == painted(tmp_path, "a.zarr", black, "zstd")


@pytest.mark.parametrize("end", ["libvips", "rename", "journal"])
def test_a_run_that_ended_at_its_end_is_resumed_there(
    tmp_path: Path, path: Callable[[str], Path], picture: np.ndarray, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyvips = pytest.importorskip("pyvips")

    def stop(*given: Any, **options: Any) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        owner, method = {"libvips": (pyvips.Image, "dzsave"), "rename": (os, "replace"), "journal": (Path, "unlink")}[
            end
        ]
        plain, counted = getattr(owner, method), []

        def once(*given: Any, **options: Any) -> Any:
            counted.append(given)
            is_last = end != "rename" or str(given[1]).endswith("a.dzi")  # the folder has its name, the file not yet
            return (
                stop()
                if is_last and not (end == "journal" and "journal" not in str(given[0]))
                else plain(*given, **options)
            )

        patch.setattr(owner, method, once)
        stopped(path("a.dzi"), picture, "png")
    assert is_unfinished(path("a.dzi")) == (end != "journal")
    whole = painted(tmp_path, "a.dzi", picture, "png")
    if end == "journal":
        assert contents(path("a.dzi")).items() >= whole.items()
        return
    assert run(path("a.dzi"), picture, "png").resumed_pixels == WIDTH * HEIGHT
    assert contents(path("a.dzi")) == whole


@pytest.mark.parametrize(
    ("name", "damage"),
    [("a.tif", "short"), ("a.tif", "moved"), ("a.tif", "long"), ("a.zarr", "a shard"), ("a.zarr", "no metadata"),
     ("a.zarr", "a file"), ("a.dzi", "short"), ("a.dzi", "missing")],
)  # fmt: skip
def test_a_partial_without_the_tiles_of_its_journal_is_refused_and_stays(
    path: Callable[[str], Path], picture: np.ndarray, name: str, damage: str
) -> None:
    compression = FORMATS[path(name).suffix].compressions[0]
    stopped(path(name), picture, compression, 7)
    partial = partial_of(paths_of(path(name))[-1])
    file = partial_of(partial / "whole.tif") if name == "a.dzi" else partial
    if damage == "short":
        file.write_bytes(file.read_bytes()[:5000])
    elif damage == "moved":
        journal = journal_of(path(name))
        first, *lines = journal.read_text().splitlines(keepends=True)
        moved = [line.replace('"end":', '"end":1') for line in lines[:1]]
        journal.write_text("".join([first, *moved]))
        with file.open("ab") as opened:
            opened.truncate(10**10)
    elif damage == "long":  # one tile, of so many bytes that zeros for it would fill the memory
        first = journal_of(path(name)).read_text().splitlines(keepends=True)[0]
        journal_of(path(name)).write_text(
            first + json.dumps({"tiles": 1, "bytes": [2**40], "end": 2**40 + 1000}) + "\n"
        )
        with file.open("ab") as opened:
            opened.truncate(2**40 + 1000)
    elif damage == "missing":
        file.unlink()
    elif damage == "a shard":
        (partial / "0/c/0/0/1").unlink()
    elif damage == "no metadata":
        (partial / "0/zarr.json").write_text("{")
    else:
        shutil.rmtree(partial)
        partial.write_text("a file")
    with pytest.raises((ResumeError, OutputError), match=r"cannot be (resumed|written)") as caught:
        run(path(name), picture, compression)
    assert str(path(name)) in str(caught.value)
    assert is_unfinished(path(name)) and threads_left() == []


@pytest.mark.parametrize("name", ["a.tif", "a.zarr", "a.dzi"])
def test_a_full_disk_leaves_a_state_that_can_be_resumed(
    tmp_path: Path, path: Callable[[str], Path], picture: np.ndarray, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compression, plain = FORMATS[path(name).suffix].compressions[0], os.fsync
    for turn in range(6):
        left = random.Random(turn).randint(8, 40)

        def full(handle: int) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            plain(handle)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            try:
                run_to_the_end(lambda: run(path(name), picture, compression) and None)
                break
            except OutputError as error:
                reason = "No space left on device. Free some space there or choose another path."
                assert str(error).endswith(reason), error
        assert threads_left() == []
    else:
        run(path(name), picture, compression)
    assert contents(path(name)) == painted(tmp_path, name, picture, compression)


def test_a_disk_that_refuses_further_bytes_leaves_a_state_that_can_be_resumed(
    tmp_path: Path, path: Callable[[str], Path], picture: np.ndarray
) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
        with pytest.raises(OutputError, match="File too large"):
            run_to_the_end(lambda: run(path("a.tif"), picture, "none") and None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert run(path("a.tif"), picture, "none").done == 1
    assert contents(path("a.tif")) == painted(tmp_path, "a.tif", picture, "none")


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc that names open files")
@pytest.mark.parametrize("name", ["a.tif", "a.zarr"])
def test_a_line_is_written_when_its_tiles_are_durable(
    path: Callable[[str], Path], picture: np.ndarray, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    plain = os.fsync

    def record(handle: int) -> None:
        plain(handle)
        synced.append(Path(os.readlink(f"/proc/self/fd/{handle}")))

    monkeypatch.setattr(os, "fsync", record)
    stopped(path(name), picture, "none", 7)
    journal = journal_of(path(name))
    lines = [k for k, file in enumerate(synced) if file == journal][2:]  # behind its clearing and its first line
    assert len(lines) >= 5
    for k, (before, after) in enumerate(zip([0, *lines], lines, strict=False)):
        parts = synced[before:after]
        shard = partial_of(path(name)) / "0/c/0" / str(k // 4) / str(k % 4)
        assert (shard if name == "a.zarr" else partial_of(path(name))) in parts


@pytest.mark.parametrize("name", ["a.tif", "a.zarr", "a.dzi"])
def test_an_older_picture_stays_until_a_resumed_one_is_complete(
    path: Callable[[str], Path], picture: np.ndarray, name: str
) -> None:
    compression = FORMATS[path(name).suffix].compressions[0]
    run(path(name), noise(HEIGHT, WIDTH, seed=1), compression)
    older = contents(path(name))
    stopped(path(name), picture, compression, 7)
    assert {key: value for key, value in contents(path(name)).items() if not key.startswith(".")} == older
    assert run(path(name), picture, compression).done > 0
    assert contents(path(name)).keys() == older.keys() and contents(path(name)) != older


def test_long_names_have_a_partial_too(path: Callable[[str], Path], picture: np.ndarray) -> None:
    name = "ä" * 120 + ".tif"  # 244 bytes
    stopped(path(name), picture, "deflate", 7)
    assert run(path(name), picture, "deflate").done > 0
    assert [file.name for file in path(name).parent.iterdir()] == [name]


def test_the_formats_that_can_be_resumed_are_listed(tmp_path: Path) -> None:
    assert resumable() == ".tif, .tiff, .zarr or .dzi"
    assert open_canvas(tmp_path / "a.png", 64, 64, patch=8).partial is None
