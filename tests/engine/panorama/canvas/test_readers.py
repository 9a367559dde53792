"""The pixels that other programs read are those that were rendered."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .painting import noise, paint

pytest.importorskip("tifffile")

Read = Callable[[Path], np.ndarray]


def by_tifffile(path: Path) -> np.ndarray:
    return np.asarray(pytest.importorskip("tifffile").imread(path))


def by_libvips(path: Path) -> np.ndarray:
    pyvips = pytest.importorskip("pyvips")
    try:
        # Without fail_on a libvips that lacks a codec gives black pixels and no error.
        image = pyvips.Image.new_from_file(str(path), revalidate=True, fail_on="warning")
        return np.asarray(image.numpy())
    except pyvips.Error as error:
        if "not configured" in str(error):
            pytest.skip("this libvips was built without the codec")
        raise


def by_gdal(path: Path) -> np.ndarray:
    with pytest.importorskip("rasterio").open(path) as file:
        return np.moveaxis(file.read(), 0, 2)


def by_pillow(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def by_image_magick(path: Path) -> np.ndarray:
    program = shutil.which("magick")
    if program is None:
        pytest.skip("ImageMagick 7 is not installed")
    done = subprocess.run([program, path, "-depth", "8", "ppm:-"], capture_output=True, check=True)
    width, height = map(int, done.stdout.split(maxsplit=3)[1:3])
    return np.frombuffer(done.stdout[-width * height * 3 :], np.uint8).reshape(height, width, 3)


READERS = [by_tifffile, by_libvips, by_gdal, by_pillow, by_image_magick]


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("compression", ["deflate", "none", "zstd", "jpeg"])
def test_a_tiff_is_read_as_it_was_rendered(tmp_path: Path, compression: str, read: Read) -> None:
    if compression in ("zstd", "jpeg"):
        pytest.importorskip("imagecodecs")
    ramp = np.add.outer(np.arange(521), np.arange(1031))[:, :, None] // np.array([7, 11, 13]) % 256
    picture = ramp.astype(np.uint8) if compression == "jpeg" else noise(521, 1031)
    paint(tmp_path / "a.tif", picture, compression=compression, metadata={"seed": "3"})
    found = read(tmp_path / "a.tif")
    bound = 0 if compression != "jpeg" else 12
    assert np.abs(found.astype(int) - picture).max() <= bound


@pytest.mark.parametrize("read", [by_libvips, by_gdal, by_pillow, by_image_magick])
@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_a_png_is_read_as_it_was_rendered(tmp_path: Path, read: Read) -> None:
    picture = noise(52, 103)
    paint(tmp_path / "a.png", picture, metadata={"seed": "3"})
    assert (read(tmp_path / "a.png") == picture).all()


def test_a_pyramid_that_libvips_makes_of_the_tiff_is_read_by_tifffile(tmp_path: Path) -> None:
    """tifffile stumbles over the description of its own in such a file."""
    pyvips = pytest.importorskip("pyvips")
    picture = noise(521, 1031)
    paint(tmp_path / "a.tif", picture, metadata={"seed": "3"})
    whole = pyvips.Image.new_from_file(str(tmp_path / "a.tif"), revalidate=True)
    whole.tiffsave(str(tmp_path / "b.tif"), tile=True, pyramid=True, bigtiff=True)
    assert (by_tifffile(tmp_path / "b.tif") == picture).all()


def test_a_description_is_what_libvips_and_gdal_find(tmp_path: Path) -> None:
    pyvips = pytest.importorskip("pyvips")
    paint(tmp_path / "a.tif", noise(20, 30), metadata={"seed": "3"})
    image = pyvips.Image.new_from_file(str(tmp_path / "a.tif"), revalidate=True)
    assert '"seed": "3"' in image.get("image-description")


def test_a_zarr_is_read_as_it_was_rendered(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    picture = noise(521, 1031)
    paint(tmp_path / "a.zarr", picture)
    array = zarr.open_group(tmp_path / "a.zarr", mode="r")["0"]
    assert array.metadata.zarr_format == 3
    assert (np.moveaxis(array[:], 0, 2) == picture).all()
