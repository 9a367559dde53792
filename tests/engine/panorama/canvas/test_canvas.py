import errno
import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zellige.engine.files.preview import preview
from zellige.engine.panorama.canvas import FORMATS, open_canvas
from zellige.errors import MissingExtraError, OutputError, ShapeError, SizeError

from .painting import needs, noise, paint, run_to_the_end, threads_left, tiles

tifffile = pytest.importorskip("tifffile")
every_format = pytest.mark.parametrize("extension", [".tif", ".png", ".zarr", ".dzi"])
both_formats = pytest.mark.parametrize("name", ["picture.tif", "picture.png"])


@pytest.fixture
def files_end_at_64_kib() -> Iterator[None]:
    """The operating system refuses to write beyond: like a full disk, without filling one."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@both_formats
@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (16, 16), (128, 1024), (512, 512), (513, 1), (1, 1031), (521, 1301)]
)
def test_the_file_holds_the_picture(tmp_path: Path, name: str, height: int, width: int) -> None:
    picture = noise(height, width)
    paint(tmp_path / name, picture)
    assert (np.asarray(Image.open(tmp_path / name)) == picture).all()
    if name.endswith("tif"):  # a second reader
        assert (tifffile.imread(tmp_path / name).reshape(picture.shape) == picture).all()


def test_the_tiff_is_tiled_bigtiff_without_a_date(tmp_path: Path) -> None:
    paint(tmp_path / "picture.TIFF", noise(600, 700))
    with tifffile.TiffFile(tmp_path / "picture.TIFF") as file:
        page = file.pages.first
        assert file.is_bigtiff and len(file.pages) == 1
        assert page.tile == (512, 512) and page.photometric == 2 and page.compression == 8 and page.predictor == 2
        assert page.tags["Software"].value == "zellige" and page.tags["ResolutionUnit"].value == 1
        assert "DateTime" not in page.tags and "ImageDescription" not in page.tags


@both_formats
def test_the_same_picture_gives_the_same_bytes(tmp_path: Path, name: str) -> None:
    picture = noise(700, 900) // 16
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        paint(tmp_path / folder / name, picture)
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@both_formats
def test_the_renderer_may_reuse_its_buffer(tmp_path: Path, name: str) -> None:
    picture = noise(512, 4096)
    buffer = np.empty((512, 512, 3), np.uint8)
    with open_canvas(tmp_path / name, 4096, 512, patch=64) as canvas:
        for tile in tiles(picture, canvas.tile):
            buffer[:] = tile
            canvas.write(buffer)
    assert (np.asarray(Image.open(tmp_path / name)) == picture).all()


def test_smooth_pictures_become_smaller(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(512, dtype=np.uint8)[None, :, None], (512, 512, 3))
    paint(tmp_path / "picture.tif", ramp)
    assert (tmp_path / "picture.tif").stat().st_size < ramp.size / 50


@pytest.mark.parametrize(
    ("height", "width", "patch", "tile"),
    [
        (4096, 8192, 64, (512, 512)),
        (128, 8192, 64, (128, 512)),
        (100, 100, 8, (112, 112)),
        (4096, 4096, 12, (480, 480)),  # whole patches
        (4096, 4096, 33, (512, 512)),  # no multiple of 33 and 16 fits
        (4096, 4096, 1024, (512, 512)),
    ],
)
def test_tiles_suit_the_picture_and_the_patch(
    tmp_path: Path, height: int, width: int, patch: int, tile: tuple[int, int]
) -> None:
    assert open_canvas(tmp_path / "picture.tif", width, height, patch=patch).tile == tile
    assert list(tmp_path.iterdir()) == []


def test_memory_stays_flat_while_the_picture_grows_16_fold(tmp_path: Path) -> None:
    tile = noise(512, 512) // 64
    paint(tmp_path / "warm.tif", tile)  # tifffile loads its tables
    bounds = []
    for side in (2048, 8192):  # 12 and 201 MB of pixels
        tracemalloc.start()
        with open_canvas(tmp_path / "picture.tif", side, side, patch=64) as canvas:
            for _ in range((side // 512) ** 2):
                canvas.write(tile)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < canvas.resident_bytes
        bounds.append(canvas.resident_bytes)
    assert bounds[1] < 1.05 * bounds[0]


def test_a_png_needs_four_bytes_a_pixel(tmp_path: Path) -> None:
    assert open_canvas(tmp_path / "picture.png", 8192, 8192, patch=64).resident_bytes == 4 * 8192 * 8192


@both_formats
def test_close_completes_the_file_early_and_once(tmp_path: Path, name: str) -> None:
    picture = noise(40, 50)
    with open_canvas(tmp_path / name, 50, 40, patch=8) as canvas:
        for tile in tiles(picture, canvas.tile):
            canvas.write(tile)
        canvas.close()
        assert (np.asarray(Image.open(tmp_path / name)) == picture).all()
        with pytest.raises(ShapeError, match="full"):
            canvas.write(picture)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@both_formats
def test_a_failed_rendering_leaves_the_older_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("older")

    def render() -> None:
        with open_canvas(tmp_path / name, 5120, 5120, patch=64) as canvas:
            for _ in range(42):
                canvas.write(noise(512, 512))
            raise KeyError("the renderer's own")

    with pytest.raises(KeyError, match="the renderer's own"):
        run_to_the_end(render)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "older"
    assert threads_left() == []


@both_formats
def test_missing_tiles_are_an_error(tmp_path: Path, name: str) -> None:
    def render() -> None:
        with open_canvas(tmp_path / name, 1024, 1024, patch=64) as canvas:
            canvas.write(noise(512, 512))

    with pytest.raises(OutputError, match="only 1 of its 4 tiles"):
        run_to_the_end(render)
    assert list(tmp_path.iterdir()) == []


@both_formats
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path, name: str, files_end_at_64_kib: None) -> None:
    (tmp_path / name).write_text("older")

    def render() -> None:
        with open_canvas(tmp_path / name, 4096, 4096, patch=64) as canvas:
            for _ in range(64):
                canvas.write(noise(512, 512))

    with pytest.raises(OutputError) as caught:
        run_to_the_end(render)
    reason = "File too large. Free some space there or choose another path."
    assert str(caught.value) == f"{tmp_path / name} cannot be written: {reason}"
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "older"
    assert threads_left() == []


@both_formats
def test_a_disk_that_is_full_at_the_end_leaves_the_older_file(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / name).write_text("older")
    monkeypatch.setattr(os, "fsync", full)  # network file systems report a full disk here
    with pytest.raises(OutputError, match="No space left"):
        paint(tmp_path / name, noise(40, 50))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "older"


@every_format
@pytest.mark.parametrize("full", ["while tiles come", "at the end"])
def test_a_full_disk_leaves_nothing_in_any_format(
    tmp_path: Path, extension: str, full: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(extension)
    path = tmp_path / f"picture{extension}"

    def no_space(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    open_canvas(path, 64, 64, patch=8)  # packages are imported before the disk is full
    if full == "at the end":
        monkeypatch.setattr(os, "fsync", no_space)
    else:
        request.getfixturevalue("files_end_at_64_kib")
    with pytest.raises(OutputError) as caught:
        run_to_the_end(lambda: paint(path, noise(512, 1024)) and None)
    assert str(caught.value).startswith(f"{path} cannot be written: "), caught.value
    assert str(caught.value).endswith(". Free some space there or choose another path.")
    assert list(tmp_path.iterdir()) == [] and threads_left() == []


@every_format
@pytest.mark.parametrize("place", ["missing", "file", "/proc/self"])
def test_a_folder_that_cannot_be_written_fails_before_the_rendering_in_any_format(
    tmp_path: Path, extension: str, place: str
) -> None:
    needs(extension)
    (tmp_path / "file").write_text("a file")
    with pytest.raises(OutputError, match="cannot be written"):
        open_canvas(tmp_path / place / f"picture{extension}", 64, 64, patch=8)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@every_format
def test_the_seconds_of_each_format_add_up(tmp_path: Path, extension: str) -> None:
    needs(extension)
    began = time.perf_counter()
    seconds = paint(tmp_path / f"picture{extension}", noise(512, 1024)).seconds
    whole = time.perf_counter() - began
    assert 0 < seconds.waiting < whole
    assert seconds.encode > 0 and seconds.write >= 0


@pytest.mark.parametrize("name", ["picture.png", "picture.tif"])
def test_a_file_without_metadata_says_nothing(tmp_path: Path, name: str) -> None:
    for metadata, found in ((None, False), ({"seed": "3"}, True)):
        paint(tmp_path / name, noise(20, 30), metadata=metadata)
        assert (b'"seed": "3"' in (tmp_path / name).read_bytes()) == found


@both_formats
def test_tiles_of_another_shape_are_refused(tmp_path: Path, name: str) -> None:
    for wrong in (noise(512, 511), noise(512, 512)[..., 0], noise(512, 512).astype(np.float32)):
        with (
            pytest.raises(ShapeError, match="tile 0 must be"),
            open_canvas(tmp_path / name, 1000, 600, patch=64) as canvas,
        ):
            canvas.write(wrong)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("extension", [*FORMATS, ".PNG"])
def test_every_listed_extension_opens(tmp_path: Path, extension: str) -> None:
    needs(extension)
    picture = noise(20, 30)
    path = tmp_path / f"picture{extension}"
    paint(path, picture, compression="png" if extension == ".dzi" else None)
    assert (np.asarray(preview(path)) == picture).all()


def test_the_list_of_extensions_needs_no_library() -> None:
    program = "import sys, zellige.engine.panorama.canvas; print({'numpy', 'PIL'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("name", ["picture.jpg", "picture", "picture.tif.gz", ".png"])
def test_other_formats_are_refused_by_naming_the_allowed(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"name it \.tif, \.tiff, \.png, \.zarr or \.dzi\."):
        open_canvas(tmp_path / name, 64, 64, patch=8)


@both_formats
def test_paths_that_cannot_be_written_fail_before_the_rendering(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder" / name).mkdir(parents=True)
    (tmp_path / "file").write_text("a file")
    (tmp_path / name).symlink_to("/dev/full")
    for path, reason in (
        (tmp_path / "folder" / name, "is a folder"),
        (tmp_path / "missing" / name, "there is no folder"),
        (tmp_path / "file" / name, "there is no folder"),
        (tmp_path / name, "is a device"),
        (tmp_path / ("a" * 300 + name), "too long"),
    ):
        with pytest.raises(OutputError, match=reason):
            open_canvas(path, 64, 64, patch=8)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc: the folder that even root cannot write to")
def test_a_read_only_folder_fails_before_the_rendering() -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        open_canvas("/proc/self/picture.tif", 64, 64, patch=8)


@pytest.mark.parametrize(
    ("name", "width", "height", "sentence"),
    [
        ("picture.png", 8193, 8192, r"Write picture\.tif instead"),
        ("picture.tif", 2**31, 1, "no side may exceed 2147483647"),
        ("picture.tif", 2**21, 2**21, "at most 4194304 fit"),
        ("picture.tif", 0, 64, "at least 1"),
        ("picture.png", 64, -1, "at least 1"),
    ],
)
def test_sizes_over_the_formats_limits_are_refused(
    tmp_path: Path, name: str, width: int, height: int, sentence: str
) -> None:
    with pytest.raises(SizeError, match=sentence):
        open_canvas(tmp_path / name, width, height, patch=64)


def test_a_terapixel_is_within_the_limits(tmp_path: Path) -> None:
    assert open_canvas(tmp_path / "picture.tif", 2**20, 2**20, patch=64).resident_bytes < 2**29


def test_a_missing_package_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(MissingExtraError, match=r"zellige\[tiff\]"):
        open_canvas(tmp_path / "picture.tif", 64, 64, patch=8)
