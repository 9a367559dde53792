"""Pictures of any size are looked at in little memory."""

import os
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zellige.engine.files import pictures
from zellige.engine.files.pictures import write_png
from zellige.engine.files.pixels import open_pixels
from zellige.engine.files.preview import preview
from zellige.errors import DataError, MissingExtraError

from .test_pictures import box_mean, noise


@pytest.mark.parametrize(("height", "width", "bound"), [(100, 331, 64), (257, 64, 50), (48, 48, 48), (1, 97, 10)])
@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_a_preview_is_the_mean_over_boxes(tmp_path: Path, name: str, height: int, width: int, bound: int) -> None:
    picture = noise(height, width, 3)
    if name == "a.tif":
        tifffile = pytest.importorskip("tifffile")
        tifffile.imwrite(tmp_path / name, picture, tile=(32, 48), photometric="rgb", compression="zlib", predictor=True)
    else:
        write_png(tmp_path / name, picture)
    reduced = preview(tmp_path / name, bound)
    expected = box_mean(picture, -(-max(height, width) // bound))
    assert max(reduced.size) <= bound
    assert np.abs(np.asarray(reduced) - expected).max() <= 0.51  # rounded to a level


def test_a_tiff_in_strips_has_a_preview(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    picture = noise(50, 40, 3)
    tifffile.imwrite(tmp_path / "a.tif", picture, photometric="rgb", rowsperstrip=7)
    assert np.abs(np.asarray(preview(tmp_path / "a.tif", 10)) - box_mean(picture, 5)).max() <= 0.51


def test_a_preview_of_65536_columns_needs_little_memory(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    tile = noise(512, 512, 3) // 64  # 200 MB of pixels
    tifffile.imwrite(
        tmp_path / "a.tif",
        (tile for _ in range(2 * 128)),
        shape=(1024, 65536, 3),
        dtype=np.uint8,
        tile=(512, 512),
        photometric="rgb",
        compression="zlib",
        compressionargs={"level": 1},
    )
    tracemalloc.start()
    assert preview(tmp_path / "a.tif").size == (2048, 32)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * 2**20


def test_files_that_are_no_picture_are_refused(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "cut.tif", noise(160, 160, 3), photometric="rgb", compression="zlib", rowsperstrip=32)
    (tmp_path / "cut.tif").write_bytes((tmp_path / "cut.tif").read_bytes()[:40_000])
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "text.tif").write_text("not an image")
    for name in ("cut.tif", "text.png", "text.tif", "missing.tif", "missing.png"):
        with pytest.raises(DataError, match=name):
            preview(tmp_path / name)


def test_a_missing_package_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(MissingExtraError, match=r"zellige\[tiff\]"):
        preview(tmp_path / "a.tif")


BOTH = pytest.mark.parametrize("look", [preview, open_pixels])


@BOTH
@pytest.mark.parametrize("compression", ["tiff_lzw", "jpeg", "packbits", "tiff_deflate", "raw"])
def test_tiffs_of_other_programs_are_read(tmp_path: Path, look: Any, compression: str) -> None:
    image = np.repeat(np.repeat(noise(4, 6, 3), 8, axis=0), 8, axis=1)
    Image.fromarray(image).save(tmp_path / "a.tif", compression=compression)
    assert np.abs(np.asarray(look(tmp_path / "a.tif")).astype(int) - image).mean() < 3


@BOTH
@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P"])
def test_tiffs_of_other_modes_are_read(tmp_path: Path, look: Any, mode: str) -> None:
    image = Image.fromarray(noise(20, 30, 3)).convert(mode)
    image.save(tmp_path / "a.tif")
    assert (np.asarray(look(tmp_path / "a.tif")) == np.asarray(image.convert("RGB"))).all()


@BOTH
def test_what_pillow_holds_as_a_whole_has_a_bound(tmp_path: Path, look: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tifffile")
    Image.fromarray(noise(20, 30, 3)).save(tmp_path / "a.tif", compression="tiff_lzw")
    monkeypatch.setattr(pictures, "MOST_PIXELS", 599)
    with pytest.raises(
        DataError,
        match=r"a.tif has 30x20 pixels; a TIFF of more than 599 must be 8-bit RGB, uncompressed or with deflate",
    ):
        look(tmp_path / "a.tif")


@BOTH
def test_a_small_file_that_announces_a_vast_picture_is_refused(tmp_path: Path, look: Any) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", noise(16, 16, 3), photometric="rgb", tile=(16, 16))
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        for tag in ("ImageLength", "ImageWidth"):
            file.pages.first.tags[tag].overwrite(60_000)
    with pytest.raises(DataError, match=r"a.tif is damaged: it has \d+ bytes and announces 60000x60000 pixels"):
        look(tmp_path / "a.tif")


@BOTH
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["a pipe", "a folder"])
@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path, look: Any, make: Any, name: str) -> None:
    make(tmp_path / name)
    with pytest.raises(DataError, match=rf"{name}.* is a (pipe|folder)"):
        look(tmp_path / name)


def test_a_large_tiff_is_mapped_and_not_held(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    picture = np.zeros((1024, 8192, 3), np.uint8)
    picture[::2] = 200
    tifffile.imwrite(tmp_path / "a.tif", picture, tile=(256, 256), photometric="rgb", compression="zlib")
    tracemalloc.start()
    found = open_pixels(tmp_path / "a.tif")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(found, np.memmap) and (found == picture).all() and peak < picture.nbytes / 3
