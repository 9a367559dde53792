import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zellige.engine.files.pictures import contact_sheet, to_uint8, write_png
from zellige.engine.files.preview import preview
from zellige.errors import DataError, MissingExtraError, OutputError, ShapeError


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def box_mean(picture: np.ndarray, factor: int) -> np.ndarray:
    rows, columns = (range(0, side, factor) for side in picture.shape[:2])
    boxes = [[picture[y : y + factor, x : x + factor].mean((0, 1)) for x in columns] for y in rows]
    return np.array(boxes)


def test_the_ends_and_the_middle_of_the_range() -> None:
    values = torch.tensor([-1.0, 1.0, -2.0, 2.0, 0.0, 1 / 127.5 - 1])
    image = values.view(1, 1, 1, 6).expand(1, 3, 1, 6)
    assert to_uint8(image)[0, 0, :, 0].tolist() == [0, 255, 0, 255, 128, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_channels_come_last_in_every_dtype(dtype: torch.dtype) -> None:
    image = torch.full((2, 3, 4, 5), -1.0, dtype=dtype)
    image[:, 1] = 1
    pixels = to_uint8(image)
    assert pixels.shape == (2, 4, 5, 3) and pixels.dtype == np.uint8 and pixels.flags.c_contiguous
    assert (pixels == [0, 255, 0]).all()


def test_every_level_survives_the_round_trip() -> None:
    levels = torch.arange(256, dtype=torch.float32)
    image = (levels / 127.5 - 1).view(1, 1, 1, 256).expand(1, 3, 1, 256)
    assert to_uint8(image)[0, 0, :, 2].tolist() == list(range(256))


def test_the_networks_output_is_left_alone() -> None:
    image = torch.zeros(1, 3, 2, 2)
    to_uint8(image)
    assert (image == 0).all()


@pytest.mark.parametrize("image", [torch.zeros(3, 4, 4), torch.zeros(1, 4, 4, 3), torch.zeros(1, 3, 4, 4).byte()])
def test_other_tensors_are_refused(image: torch.Tensor) -> None:
    with pytest.raises(ShapeError, match=r"\[N, 3, H, W\]"):
        to_uint8(image)


def test_a_png_holds_the_image_and_nothing_else_is_left(tmp_path: Path) -> None:
    image = noise(11, 17, 3)
    write_png(tmp_path / "a.png", image)
    write_png(tmp_path / "b.png", image[:, ::-1][:, ::-1])
    assert (np.asarray(Image.open(tmp_path / "a.png")) == image).all()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_a_link_stays_a_link_to_the_new_image(tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    write_png(tmp_path / "link.png", noise(2, 2, 3))
    assert (tmp_path / "link.png").is_symlink()
    assert (np.asarray(Image.open(tmp_path / "a.png")) == noise(2, 2, 3)).all()


def test_a_png_in_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="there is no folder"):
        write_png(tmp_path / "missing" / "a.png", noise(2, 2, 3))


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="too long"):
        write_png(tmp_path / ("a" * 300 + ".png"), noise(2, 2, 3))


def test_a_grey_image_is_refused_as_png(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match=r"\[H, W, 3\]"):
        write_png(tmp_path / "a.png", noise(4, 4))


@pytest.mark.parametrize(
    ("number", "height", "width", "rows", "columns"),
    [(16, 64, 64, 4, 4), (8, 128, 1024, 8, 1), (4, 128, 1024, 4, 1), (8, 1024, 128, 1, 8), (1, 5, 9, 1, 1)],
)
def test_a_sheet_is_nearly_square_in_pixels(number: int, height: int, width: int, rows: int, columns: int) -> None:
    sheet = contact_sheet(noise(number, height, width, 3), gap=2)
    assert sheet.shape == (rows * (height + 2) - 2, columns * (width + 2) - 2, 3)


def test_a_sheet_goes_row_by_row_and_ends_in_white() -> None:
    images = noise(5, 4, 6, 3) // 2
    sheet = contact_sheet(images, columns=3, gap=1)
    for index, image in enumerate(images):
        top, left = index // 3 * 5, index % 3 * 7
        assert (sheet[top : top + 4, left : left + 6] == image).all()
    assert (sheet[4] == 255).all() and (sheet[:, 6] == 255).all() and (sheet[5:, 14:] == 255).all()


@pytest.mark.parametrize(
    ("images", "columns"), [(noise(0, 4, 4, 3), None), (noise(4, 4, 3), None), (noise(1, 4, 4, 3), 0)]
)
def test_a_sheet_of_nothing_is_refused(images: np.ndarray, columns: int | None) -> None:
    with pytest.raises(ShapeError, match="contact sheet"):
        contact_sheet(images, columns)


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


def test_files_that_are_no_rgb_picture_are_refused(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "grey.tif", noise(16, 16), photometric="minisblack")
    tifffile.imwrite(tmp_path / "cut.tif", noise(160, 160, 3), photometric="rgb", compression="zlib", rowsperstrip=32)
    (tmp_path / "cut.tif").write_bytes((tmp_path / "cut.tif").read_bytes()[:40_000])
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "text.tif").write_text("not an image")
    for name in ("grey.tif", "cut.tif", "text.png", "text.tif", "missing.tif", "missing.png"):
        with pytest.raises(DataError, match=name):
            preview(tmp_path / name)


def test_a_missing_package_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(MissingExtraError, match=r"zellige\[tiff\]"):
        preview(tmp_path / "a.tif")
