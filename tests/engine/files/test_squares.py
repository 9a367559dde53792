import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from zellige.engine.files.pictures import to_uint8
from zellige.engine.files.squares import Squares, cut_squares, whole_mask
from zellige.errors import DataError, ShapeError

TAKEN = "give a uint8 array or tensor [H, W, 3], a Pillow image, or the path of an image file"


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    return np.asarray(Image.fromarray(noise(4, 4, 3)).resize((width, height), Image.Resampling.BICUBIC))


class TestArrays:
    def test_images_of_the_models_size_are_copied(self) -> None:
        images = noise(3, 16, 16, 3)
        found = cut_squares(images, 16)
        assert (found.pixels == images).all() and found.sizes == [(16, 16)] * 3
        assert not np.shares_memory(found.pixels, images)

    def test_a_centre_square_of_the_models_size_is_copied(self) -> None:
        images = noise(1, 16, 25, 3)
        assert (cut_squares(images, 16).pixels == images[:, :, 4:20]).all()
        assert (cut_squares(images.swapaxes(1, 2), 16).pixels == images.swapaxes(1, 2)[:, 4:20]).all()

    @pytest.mark.parametrize(("height", "width"), [(31, 31), (7, 7), (40, 20), (16, 200), (1, 1), (1, 50)])
    def test_other_sizes_are_cut_and_resized_as_in_training(self, height: int, width: int) -> None:
        image = smooth(height, width)
        fitted = ImageOps.fit(Image.fromarray(image), (16, 16), Image.Resampling.LANCZOS)
        difference = cut_squares([image], 16).pixels[0].astype(int) - np.asarray(fitted)
        # Training's window may lie half a pixel beside this one, which whole pixels make exact for masks.
        assert np.abs(difference).mean() < (4 if (height - width) % 2 else 0.5)

    def test_a_list_may_mix_sizes_arrays_and_files(self, tmp_path: Path) -> None:
        Image.fromarray(noise(20, 30, 3)).save(tmp_path / "a.png")
        found = cut_squares([noise(16, 16, 3), str(tmp_path / "a.png"), tmp_path / "a.png", noise(9, 5, 3)], 16)
        assert found.pixels.shape == (4, 16, 16, 3) and found.pixels.dtype == np.uint8
        assert found.sizes == [(16, 16), (20, 30), (20, 30), (9, 5)]

    def test_a_file_and_its_array_give_the_same(self, tmp_path: Path) -> None:
        image = noise(21, 30, 3)
        Image.fromarray(image).save(tmp_path / "a.png")
        assert (cut_squares([tmp_path / "a.png"], 16).pixels == cut_squares(image[None], 16).pixels).all()

    def test_squares_stay_and_can_be_sliced(self) -> None:
        found = cut_squares([noise(5, 6, 3, seed=k) for k in range(3)], 8)
        assert cut_squares(found, 8) is found
        assert len(found[1:]) == 2 and (found[1:].pixels == found.pixels[1:]).all()

    @pytest.mark.parametrize(
        ("images", "sentence"),
        [
            (noise(4, 4, 3), "images must be uint8 [N, H, W, 3], or a list; got uint8 [4, 4, 3]"),
            ([], "there are no images; give one or more"),
            (noise(0, 4, 4, 3), "there are no images; give one or more"),
            ("a.png", "images must be an array or a list; write ['a.png'] for one"),
            ([noise(4, 4)], "image 0 must be uint8 [H, W, 3] with at least one pixel; got uint8 [4, 4]"),
            (
                [noise(4, 4, 3), noise(4, 4, 4)],
                "image 1 must be uint8 [H, W, 3] with at least one pixel; got uint8 [4, 4, 4]",
            ),
            ([noise(0, 4, 3)], "image 0 must be uint8 [H, W, 3] with at least one pixel; got uint8 [0, 4, 3]"),
            (noise(2, 4, 0, 3), "image 0 must be uint8 [H, W, 3] with at least one pixel; got uint8 [4, 0, 3]"),
            (
                np.zeros((1, 4, 4, 3), np.float32),
                "image 0 must be uint8 [H, W, 3] with at least one pixel; got float32 [4, 4, 3]",
            ),
            (Image.new("RGB", (4, 4)), "images must be an array or a list; write [image] for one"),
            (7, f"images must be an array or a list; got int: {TAKEN}"),
            (b"\x89PNG", f"images must be an array or a list; got bytes: {TAKEN}"),
            ([[[0, 0, 0]]], f"image 0 is of the type list; {TAKEN}"),
            ([noise(4, 4, 3), None], f"image 1 is of the type NoneType; {TAKEN}"),
            ([b"\x89PNG"], f"image 0 is of the type bytes; {TAKEN}"),
            (
                torch.zeros(2, 4, 4, 3),
                "images is a tensor torch.float32 [2, 4, 4, 3]; floats must be [N, 3, H, W]",
            ),
            (
                torch.full((1, 3, 4, 4), 255.0),
                "images is a tensor of floats from 255 to 255, and floats must lie in [-1, 1]; turn bytes v into "
                "v / 127.5 - 1, or give them as uint8 [N, H, W, 3]",
            ),
            (
                torch.full((1, 3, 4, 4), torch.nan),
                "images is a tensor of floats from nan to nan, and floats must lie in [-1, 1]; turn bytes v into "
                "v / 127.5 - 1, or give them as uint8 [N, H, W, 3]",
            ),
            (
                torch.zeros(1, 4, 4, 3, dtype=torch.int64),
                "image 0 must be uint8 [H, W, 3] with at least one pixel; got int64 [4, 4, 3]",
            ),
            (
                torch.zeros(1, 3, 4, 4, dtype=torch.uint8),
                "image 0 must be uint8 [H, W, 3] with at least one pixel; got uint8 [3, 4, 4]",
            ),
        ],
    )
    def test_other_arrays_are_refused(self, images: Any, sentence: str) -> None:
        with pytest.raises(ShapeError, match=f"^{re.escape(sentence)}$"):
            cut_squares(images, 16)


class TestWhatPeopleHandOver:
    """Each is taken as the array that it stands for."""

    @pytest.mark.parametrize(
        "given",
        [
            torch.from_numpy, lambda images: list(torch.from_numpy(images)), lambda images: tuple(images),
            lambda images: [Image.fromarray(image) for image in images],
            lambda images: [Image.fromarray(image).convert("RGBA") for image in images],
            lambda images: images[:, ::-1][:, ::-1],
        ],
        ids=["tensor", "tensors", "tuple", "Pillow", "Pillow with transparency", "strided"],
    )  # fmt: skip
    def test_bytes(self, given: Any) -> None:
        images = noise(3, 20, 24, 3)
        assert (cut_squares(given(images), 16).pixels == cut_squares(images, 16).pixels).all()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
    def test_floats_as_networks_make_them(self, dtype: torch.dtype) -> None:
        floats = torch.from_numpy(noise(3, 3, 20, 24)).to(dtype).div(127.5).sub(1).requires_grad_()
        right = cut_squares(to_uint8(floats), 16).pixels
        assert (cut_squares(floats, 16).pixels == right).all()
        assert (cut_squares(list(floats), 16).pixels == right).all()

    def test_a_pillow_image_is_turned_upright(self) -> None:
        exif, image = Image.Exif(), Image.fromarray(noise(16, 16, 3))
        exif[0x0112] = 3
        image.info["exif"] = exif.tobytes()
        assert (cut_squares([image], 16).pixels[0] == np.asarray(image)[::-1, ::-1]).all()

    def test_a_pillow_image_whose_file_is_closed_is_refused(self, tmp_path: Path) -> None:
        Image.fromarray(noise(4, 4, 3)).save(tmp_path / "a.png")
        image = Image.open(tmp_path / "a.png")
        image.close()
        with pytest.raises(DataError, match="^image 0 cannot be read"):
            cut_squares([image], 4)

    @pytest.mark.parametrize("mode", ["F", "I"])
    def test_a_pillow_image_of_wide_numbers_is_refused(self, mode: str) -> None:
        with pytest.raises(DataError, match="^image 0 has channels of signed numbers, floats or 32 bits"):
            cut_squares([Image.new(mode, (4, 4))], 4)


class TestMasks:
    def test_a_mask_of_the_models_size_is_copied(self) -> None:
        assert (whole_mask(mask := noise(16, 16), (16, 16)) == mask).all()

    @pytest.mark.parametrize("size", [(16, 25), (25, 16), (48, 64), (5, 3), (1, 1)])
    def test_the_square_is_covered_and_the_rest_is_0(self, size: tuple[int, int]) -> None:
        side, (height, width) = min(size), size
        top, left = (height - side) // 2, (width - side) // 2
        mask = whole_mask(np.full((16, 16), 255, np.uint8), size)
        assert mask.shape == size and (mask[top : top + side, left : left + side] == 255).all()
        assert np.count_nonzero(mask) == side * side


def test_squares_know_the_sizes_of_what_they_were() -> None:
    assert Squares(noise(1, 8, 8, 3), [(3, 4)])[0:1].sizes == [(3, 4)]
