import json
import sys
from pathlib import Path

import numpy as np
import pytest

from zellige.engine.panorama.canvas import open_canvas
from zellige.errors import MissingExtraError, OutputError

from .painting import noise, paint

tifffile = pytest.importorskip("tifffile")
LOSSLESS = ("deflate", "none", "zstd")
CODES = {"deflate": 8, "none": 1, "zstd": 50000, "jpeg": 7}


def needs_codecs(compression: str) -> None:
    if compression in ("zstd", "jpeg"):
        pytest.importorskip("imagecodecs")


@pytest.mark.parametrize("compression", LOSSLESS)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (513, 1), (521, 1031)])
def test_three_compressions_keep_every_pixel(tmp_path: Path, compression: str, height: int, width: int) -> None:
    needs_codecs(compression)
    picture = noise(height, width)
    paint(tmp_path / "a.tif", picture, compression=compression)
    assert (tifffile.imread(tmp_path / "a.tif").reshape(picture.shape) == picture).all()


@pytest.mark.parametrize("compression", CODES)
def test_each_compression_is_named_in_the_file_and_repeats_its_bytes(tmp_path: Path, compression: str) -> None:
    needs_codecs(compression)
    files = []
    for _ in range(2):
        paint(tmp_path / "a.tif", noise(600, 700) // 16, compression=compression)
        files.append((tmp_path / "a.tif").read_bytes())
    assert files[0] == files[1]
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        page = file.pages.first
        assert file.is_bigtiff and page.tile == (512, 512) and page.compression == CODES[compression]
        assert page.predictor == (2 if compression in ("deflate", "zstd") else 1)


@pytest.mark.parametrize("quality", [50, 95])
def test_jpeg_keeps_the_colours_of_edges(tmp_path: Path, quality: int) -> None:
    needs_codecs("jpeg")
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, ::2] = (255, 0, 0)
    picture[:, 1::2] = (0, 0, 255)  # columns of one pixel, which half the resolution of colours would mix
    paint(tmp_path / "a.tif", picture, compression="jpeg", quality=quality)
    errors = np.abs(tifffile.imread(tmp_path / "a.tif").astype(int) - picture)
    assert errors.max() < (30 if quality == 50 else 10)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.pages.first.tags["YCbCrSubSampling"].value == (1, 1)


def test_a_higher_quality_is_nearer_and_larger(tmp_path: Path) -> None:
    needs_codecs("jpeg")
    picture = noise(128, 128) // 4 + np.arange(128, dtype=np.uint8)[:, None]
    errors, sizes = [], []
    for quality in (50, 75, 95, 100):
        paint(tmp_path / "a.tif", picture, compression="jpeg", quality=quality)
        errors.append(np.abs(tifffile.imread(tmp_path / "a.tif").astype(int) - picture).mean())
        sizes.append((tmp_path / "a.tif").stat().st_size)
    assert errors == sorted(errors, reverse=True) and sizes == sorted(sizes)


def test_what_lies_beyond_the_border_does_not_shine_through(tmp_path: Path) -> None:
    needs_codecs("jpeg")
    paint(tmp_path / "a.tif", np.full((20, 29, 3), 200, np.uint8), compression="jpeg", quality=50)
    picture = tifffile.imread(tmp_path / "a.tif")
    assert picture.shape == (20, 29, 3) and (np.abs(picture.astype(int) - 200) <= 1).all()


def test_the_description_is_json_and_the_shape_is_not_in_it(tmp_path: Path) -> None:
    paint(tmp_path / "a.tif", noise(20, 30), metadata={"seed": "3", "command": "zellige panorama 'Gemälde'"})
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert not file.is_shaped
        described = json.loads(file.pages.first.tags["ImageDescription"].value)
    assert described["seed"] == "3" and described["command"] == "zellige panorama 'Gemälde'"
    assert described["version"].startswith("zellige ")


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("a.tif", {"compression": "lzw"}, "the compression lzw; .tif takes deflate, none, zstd or jpeg."),
        ("a.zarr", {"compression": "jpeg"}, ".zarr takes zstd or none."),
        ("a.png", {"compression": "zstd"}, ".png takes deflate."),
        ("a.tif", {"quality": 90}, "a.tif has the compression deflate; leave the quality out."),
        ("a.tif", {"compression": "jpeg", "quality": 0}, "a number from 1 to 100, not 0."),
        ("a.dzi", {"compression": "png", "quality": 90}, "a.dzi has the compression png; leave the quality out."),
    ],
)  # fmt: skip
def test_a_compression_that_the_format_lacks_is_refused(
    tmp_path: Path, name: str, settings: dict[str, object], sentence: str
) -> None:
    with pytest.raises(OutputError) as caught:
        open_canvas(tmp_path / name, 64, 64, patch=8, **settings)  # type: ignore[arg-type]
    assert sentence in str(caught.value)


@pytest.mark.parametrize("compression", ["zstd", "jpeg"])
def test_missing_codecs_name_their_extra(tmp_path: Path, compression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    sentence = rf"TIFF with {compression} needs the package 'imagecodecs'; .*zellige\[tiff\]"
    with pytest.raises(MissingExtraError, match=sentence):
        open_canvas(tmp_path / "a.tif", 64, 64, patch=8, compression=compression)
    assert list(tmp_path.iterdir()) == []
