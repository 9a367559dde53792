from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zellige.engine.files.pictures import contact_sheet, to_uint8, write_png
from zellige.errors import OutputError, ShapeError


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
