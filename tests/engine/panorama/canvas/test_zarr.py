import json
import shutil
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zellige.engine.panorama.canvas import open_canvas
from zellige.errors import MissingExtraError, OutputError

from .painting import noise, paint, run_to_the_end, threads_left

zarr = pytest.importorskip("zarr")


def level(path: Path, k: int) -> np.ndarray:
    """Pixels [H, W, 3] of a level."""
    return np.moveaxis(zarr.open_array(path / str(k), mode="r")[:], 0, 2)


def halved(picture: np.ndarray, cyclic: tuple[bool, bool]) -> np.ndarray:
    """The reference: rounded means of 2x2, of the whole picture at once."""
    for axis, closed in enumerate(cyclic):
        pads = [(0, picture.shape[axis] % 2 if axis == this else 0) for this in range(3)]
        picture = np.pad(picture, pads, mode="wrap" if closed else "edge")
    height, width, _ = picture.shape
    sums = picture.astype(int).reshape(height // 2, 2, width // 2, 2, 3).sum(axis=(1, 3))
    return ((sums + 2) // 4).astype(np.uint8)


@pytest.mark.parametrize("cyclic", [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize(("height", "width"), [(1031, 517), (1, 1301), (1537, 3)])
def test_every_level_is_the_mean_of_2x2_of_the_level_above(
    tmp_path: Path, height: int, width: int, cyclic: tuple[bool, bool]
) -> None:
    picture = noise(height, width)
    paint(tmp_path / "a.zarr", picture, cyclic=cyclic)
    levels = len([entry for entry in (tmp_path / "a.zarr").iterdir() if entry.is_dir()])
    assert levels == 3
    for k in range(levels):
        assert (level(tmp_path / "a.zarr", k) == picture).all()
        assert (max(picture.shape[:2]) <= 512) == (k == levels - 1)
        picture = halved(picture, cyclic)


@pytest.mark.parametrize("smaller", [False, True])
def test_shards_may_be_written_by_others(tmp_path: Path, smaller: bool) -> None:
    """Of level 0, or of the smaller levels too."""
    picture = noise(1031, 1601)
    paint(tmp_path / "a.zarr", picture)
    with open_canvas(tmp_path / "b.zarr", 1601, 1031, patch=64) as canvas:

        def write(level: int, shards: int) -> bool:
            if smaller or level == 0:
                shutil.copytree(tmp_path / "a.zarr" / str(level) / "c", root / str(level) / "c")
            return smaller

        root = canvas.hand_over(write)
        write(0, 12)
        (root / "0/c/0/0/0.1234.partial").touch()  # of a writer that was killed
        canvas.adopt(12)
    found = []
    for top in (tmp_path / "a.zarr", tmp_path / "b.zarr"):
        (top / "zarr.json").unlink()  # which has the picture's name
        found.append({path.relative_to(top): path.is_file() and path.read_bytes() for path in top.rglob("*")})
    assert found[0] == found[1] and len(found[0]) > 12


def test_a_shard_that_others_have_not_written_is_not_taken_for_black(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="0/c/0/0/0 is not seen on .*; the folder must be shared by all of them"),
        open_canvas(tmp_path / "a.zarr", 1601, 1031, patch=64) as canvas,
    ):
        canvas.hand_over(lambda level, shards: False)
        canvas.adopt(12)
    assert list(tmp_path.iterdir()) == []


def test_the_last_column_of_a_ring_knows_the_first(tmp_path: Path) -> None:
    picture = np.zeros((16, 601, 3), np.uint8)
    picture[:, 0] = 200
    for name, cyclic, last in (("ring", True, 100), ("strip", False, 0)):
        paint(tmp_path / f"{name}.zarr", picture, cyclic=(False, cyclic))
        assert (level(tmp_path / f"{name}.zarr", 1)[:, -1] == last).all()


def test_odd_sides_have_a_scale_of_two_and_true_centres(tmp_path: Path) -> None:
    paint(tmp_path / "a.zarr", noise(3, 1301))
    attributes = json.loads((tmp_path / "a.zarr" / "zarr.json").read_bytes())["attributes"]["ome"]
    assert attributes["version"] == "0.5"
    (multiscale,) = attributes["multiscales"]
    assert [axis["name"] for axis in multiscale["axes"]] == ["c", "y", "x"]
    for k, dataset in enumerate(multiscale["datasets"]):
        scale, translation = dataset["coordinateTransformations"]
        assert dataset["path"] == str(k)
        assert scale == {"type": "scale", "scale": [1, 2**k, 2**k]}
        assert translation == {"type": "translation", "translation": [0, (2**k - 1) / 2, (2**k - 1) / 2]}


def test_the_metadata_is_that_of_ome_zarr(tmp_path: Path) -> None:
    models = pytest.importorskip("ome_zarr_models.v05")
    paint(tmp_path / "a.zarr", noise(600, 700), metadata={"seed": "3"})
    image = models.Image.from_zarr(zarr.open_group(tmp_path / "a.zarr", mode="r"))
    assert len(image.attributes.ome.multiscales[0].datasets) == 2


@pytest.mark.parametrize(
    ("height", "width", "patch", "shard", "chunk"),
    [(1031, 517, 64, (512, 512), (256, 256)), (100, 700, 12, (112, 480), (112, 240)), (2, 3, 64, (16, 16), (16, 16))],
)
def test_shards_are_the_tiles_of_the_canvas(
    tmp_path: Path, height: int, width: int, patch: int, shard: tuple[int, int], chunk: tuple[int, int]
) -> None:
    canvas = paint(tmp_path / "a.zarr", noise(height, width), patch)
    array = zarr.open_array(tmp_path / "a.zarr" / "0", mode="r")
    assert canvas.tile == shard and array.shards == (3, *shard) and array.chunks == (3, *chunk)


def test_each_shard_is_written_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    plain = zarr.storage.LocalStore.set

    async def record(store: Any, key: str, value: Any) -> None:
        written.append(key)
        await plain(store, key, value)

    monkeypatch.setattr(zarr.storage.LocalStore, "set", record)
    paint(tmp_path / "a.zarr", noise(1031, 1517))
    shards = [key for key in written if "/c/" in key]
    assert len(shards) == len(set(shards)) == 9 + 4 + 1


def test_pixels_of_all_levels_are_counted(tmp_path: Path) -> None:
    paint(tmp_path / "a.zarr", noise(1031, 1517))
    shapes = [zarr.open_array(tmp_path / "a.zarr" / str(k)).shape for k in range(3)]
    canvas = open_canvas(tmp_path / "b.zarr", 1517, 1031, patch=64)
    assert canvas.stored_pixels == sum(height * width for _, height, width in shapes) > 1.3 * 1031 * 1517
    assert open_canvas(tmp_path / "b.tif", 1517, 1031, patch=64).stored_pixels == 1031 * 1517


def test_black_shards_are_written_too(tmp_path: Path) -> None:
    paint(tmp_path / "a.zarr", np.zeros((600, 700, 3), np.uint8))
    assert len([path for path in (tmp_path / "a.zarr" / "0" / "c").rglob("*") if path.is_file()]) == 4


@pytest.mark.parametrize("compression", ["zstd", "none"])
def test_a_changed_byte_is_found_wherever_it_lies(tmp_path: Path, compression: str) -> None:
    picture = noise(40, 50)
    paint(tmp_path / "a.zarr", picture, compression=compression)
    (shard,) = [path for path in (tmp_path / "a.zarr" / "0" / "c").rglob("*") if path.is_file()]
    content = shard.read_bytes()
    assert (level(tmp_path / "a.zarr", 0) == picture).all()
    for offset in np.linspace(0, len(content) - 1, 40).astype(int):
        changed = bytearray(content)
        changed[offset] ^= 1
        shard.write_bytes(changed)
        with pytest.raises((ValueError, RuntimeError)):
            level(tmp_path / "a.zarr", 0)


@pytest.mark.parametrize("theirs", ["notes.txt", "zarr.json", "inside", "a file"])
def test_a_folder_that_is_no_canvas_is_refused_and_kept(tmp_path: Path, theirs: str) -> None:
    path = tmp_path / "a.zarr"
    if theirs == "inside":
        paint(path, noise(20, 30))
        (path / "notes.txt").write_text("theirs")
    elif theirs == "zarr.json":
        zarr.create_group(path, attributes={"ome": {"version": "0.5"}})
    elif theirs == "a file":
        path.write_text("theirs")
    else:
        path.mkdir()
        (path / theirs).write_text("theirs")
    before = {entry: entry.stat().st_mtime_ns for entry in tmp_path.rglob("*")}
    with pytest.raises(OutputError, match=r"a\.zarr is there already; remove it, or give another name"):
        open_canvas(path, 30, 20, patch=8)
    before.pop(tmp_path, None)
    assert {entry for entry in tmp_path.rglob("*")} == set(before)


def test_an_older_canvas_is_replaced_as_a_whole(tmp_path: Path) -> None:
    paint(tmp_path / "a.zarr", noise(600, 1030))
    picture = noise(20, 30)
    paint(tmp_path / "a.zarr", picture)
    assert sorted(entry.name for entry in (tmp_path / "a.zarr").iterdir()) == ["0", "zarr.json"]
    assert (level(tmp_path / "a.zarr", 0) == picture).all()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zarr"]


def test_a_failed_rendering_leaves_the_older_canvas(tmp_path: Path) -> None:
    picture = noise(20, 30)
    paint(tmp_path / "a.zarr", picture)

    def render() -> None:
        with open_canvas(tmp_path / "a.zarr", 5120, 512, patch=64) as canvas:
            canvas.write(noise(512, 512))
            raise KeyError("the renderer's own")

    with pytest.raises(KeyError, match="the renderer's own"):
        run_to_the_end(render)
    assert (level(tmp_path / "a.zarr", 0) == picture).all()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zarr"] and threads_left() == []


def test_memory_stays_flat_while_the_picture_grows(tmp_path: Path) -> None:
    tile = noise(512, 512) // 64
    paint(tmp_path / "warm.zarr", tile)
    peaks = []
    for side in (1024, 3072):  # 3 and 28 MB of pixels
        tracemalloc.start()
        with open_canvas(tmp_path / "a.zarr", side, side, patch=64) as canvas:
            for _ in range((side // 512) ** 2):
                canvas.write(tile)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert peaks[-1] < canvas.resident_bytes
    assert peaks[1] < peaks[0] + 8 * tile.size


def test_the_group_holds_what_the_caller_knows(tmp_path: Path) -> None:
    paint(tmp_path / "a.zarr", noise(20, 30), metadata={"seed": "3"}, cyclic=(False, True))
    known = zarr.open_group(tmp_path / "a.zarr", mode="r").attrs["zellige"]
    assert known["seed"] == "3" and known["cyclic"] == [False, True] and known["version"].startswith("zellige ")


def test_a_missing_package_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(MissingExtraError, match=r"zellige\[zarr\]"):
        open_canvas(tmp_path / "a.zarr", 64, 64, patch=8)
