"""Finished pictures that are written again with some tiles anew."""

from pathlib import Path

import numpy as np
import pytest

from zellige.engine.panorama.canvas import open_canvas
from zellige.engine.panorama.canvas.finished import opened
from zellige.engine.panorama.canvas.notes import notes_of
from zellige.engine.panorama.scene import Region
from zellige.errors import DataError, OutputError

from .painting import needs, noise, paint, tiles

FORMS = [
    (".tif", "deflate"), (".tif", "none"), (".tif", "zstd"), (".tif", "jpeg"),
    (".zarr", "zstd"), (".zarr", "none"), (".png", "deflate"), (".dzi", "png"),
]  # fmt: skip
forms = pytest.mark.parametrize(("extension", "compression"), FORMS)
# Size, tile, and the axes that close, of pictures of three levels, one of which has an odd side.
LEVELS = [
    ((17, 1030), (32, 128), (False, True)), ((1030, 17), (128, 32), (True, False)),
    ((1030, 1030), (512, 512), (True, True)),
]  # fmt: skip
NOTES = {"model": "planet"}


def contents(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def painted(path: Path, picture: np.ndarray, compression: str, **more: object) -> Path:
    needs(path.suffix)
    if compression in ("zstd", "jpeg") and path.suffix == ".tif":
        pytest.importorskip("imagecodecs")
    paint(path, picture, compression=compression, metadata=NOTES, **more)
    return path


def again(older: Path, path: Path, picture: np.ndarray, new: set[int], **more: object) -> None:
    """Write a picture of which only the tiles `new` differ from the older one."""
    with opened(older) as finished:
        form = {"compression": finished.compression, "tile": finished.tile, "metadata": NOTES} | more
        with open_canvas(path, picture.shape[1], picture.shape[0], patch=64, **form) as canvas:
            for k, tile in enumerate(tiles(picture, canvas.tile)):
                canvas.write(tile) if k in new else canvas.keep(finished)


def changed(picture: np.ndarray, tile: tuple[int, int], new: set[int]) -> np.ndarray:
    columns = -(-picture.shape[1] // tile[1])
    made, other = picture.copy(), noise(*picture.shape[:2], seed=1)
    for k in new:
        place = np.s_[k // columns * tile[0] : (k // columns + 1) * tile[0],
                      k % columns * tile[1] : (k % columns + 1) * tile[1]]  # fmt: skip
        made[place] = other[place]
    return made


@forms
def test_the_file_is_the_one_that_is_painted_anew(tmp_path: Path, extension: str, compression: str) -> None:
    picture = noise(70, 100)
    (tmp_path / "fresh").mkdir()
    sides = {} if extension in (".png", ".dzi") else {"tile": (32, 48)}
    older = painted(tmp_path / f"older{extension}", picture, compression, **sides)
    made = changed(picture, (32, 48), {1, 5}) if sides else changed(picture, (32, 32), set())
    again(older, tmp_path / f"new{extension}", made, {1, 5} if sides else set())
    fresh = painted(tmp_path / "fresh" / f"new{extension}", made, compression, **sides)
    assert contents(tmp_path / f"new{extension}") == contents(fresh)


@pytest.mark.parametrize(("size", "tile", "cyclic"), LEVELS, ids=lambda value: "x".join(map(str, value)))
def test_levels_of_a_zarr_follow_their_tiles(
    tmp_path: Path, size: tuple[int, int], tile: tuple[int, int], cyclic: tuple[bool, bool]
) -> None:
    picture = noise(*size)
    (tmp_path / "fresh").mkdir()
    older = painted(tmp_path / "older.zarr", picture, "none", tile=tile, cyclic=cyclic)
    for new in ({0}, {3}):
        made = changed(picture, tile, new)
        again(older, tmp_path / "new.zarr", made, new, cyclic=cyclic)
        fresh = painted(tmp_path / "fresh" / "new.zarr", made, "none", tile=tile, cyclic=cyclic)
        assert contents(tmp_path / "new.zarr") == contents(fresh)


@forms
def test_a_picture_can_replace_itself(tmp_path: Path, extension: str, compression: str) -> None:
    older = painted(tmp_path / f"a{extension}", noise(70, 100), compression)
    before = contents(older)
    with opened(older) as finished:
        pixels = finished.pixels(Region(0, 0, 70, 100))
    again(older, older, pixels, set())
    assert contents(older) == before
    assert {path.name for path in tmp_path.iterdir()} <= {older.name, "a_files"}


@forms
def test_regions_and_notes_are_read(tmp_path: Path, extension: str, compression: str) -> None:
    picture = noise(530, 600)
    path = painted(tmp_path / f"a{extension}", picture, compression)
    assert notes_of(path)["model"] == "planet"
    with opened(path) as finished:
        assert (finished.height, finished.width, finished.compression) == (530, 600, compression)
        for top, left, height, width in ((0, 0, 530, 600), (500, 505, 30, 20), (511, 0, 2, 600), (3, 599, 1, 1)):
            made = finished.pixels(Region(top, left, height, width)).astype(int)
            away = np.abs(made - picture[top : top + height, left : left + width]).max()
            assert away == 0 if compression != "jpeg" else away < 60


def test_deep_zoom_with_jpeg_is_refused(tmp_path: Path) -> None:
    path = painted(tmp_path / "a.dzi", noise(70, 100), "jpeg")
    with pytest.raises(OutputError, match="has tiles of JPEG, and its pyramid is made as a whole"), opened(path):
        pass


def test_what_another_program_wrote_is_refused(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", noise(70, 100), tile=(16, 16), photometric="rgb")
    with pytest.raises(DataError, match="another program has written it"), opened(tmp_path / "a.tif"):
        pass


def test_a_zarr_of_other_shards_is_not_copied(tmp_path: Path) -> None:
    older = painted(tmp_path / "a.zarr", noise(70, 100), "zstd", tile=(32, 32))
    with pytest.raises(DataError, match="lays out its levels otherwise"):
        again(older, tmp_path / "b.zarr", noise(70, 100), set(), tile=(16, 32))
    assert not (tmp_path / "b.zarr").exists()


def test_missing_notes_are_none(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", noise(20, 20))
    assert notes_of(tmp_path / "a.png") == {}
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="cannot be read as a PNG"):
        notes_of(tmp_path / "b.png")
    with pytest.raises(DataError, match="is no picture of Zellige"):
        notes_of(tmp_path / "gone.zarr")
