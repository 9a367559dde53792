import os
import re
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from zellige.engine.files import squares as subject
from zellige.engine.files.squares import Squares, cut_squares, read_picture, whole_mask
from zellige.errors import DataError, ShapeError


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
            ("a.png", "images must be an array or a list; write ['a.png'] for one file"),
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
        ],
    )
    def test_other_arrays_are_refused(self, images: Any, sentence: str) -> None:
        with pytest.raises(ShapeError, match=f"^{re.escape(sentence)}$"):
            cut_squares(images, 16)


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


class TestFiles:
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_every_orientation_is_turned_upright(self, tmp_path: Path, orientation: int) -> None:
        upright = Image.fromarray(noise(10, 20, 3))
        turns = {
            1: [], 2: ["FLIP_LEFT_RIGHT"], 3: ["ROTATE_180"], 4: ["FLIP_TOP_BOTTOM"], 5: ["TRANSPOSE"],
            6: ["ROTATE_90"], 7: ["TRANSVERSE"], 8: ["ROTATE_270"],
        }  # fmt: skip
        stored = upright
        for turn in turns[orientation]:
            stored = stored.transpose(getattr(Image.Transpose, turn))
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored.save(tmp_path / "a.png", exif=exif)
        assert (np.asarray(read_picture(tmp_path / "a.png")) == np.asarray(upright)).all()

    @pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
    def test_transparency_is_dropped(self, tmp_path: Path, mode: str) -> None:
        colours = noise(6, 8, 3) if mode == "RGBA" else np.repeat(noise(6, 8, 1) // 64 * 64, 3, axis=2)
        if mode == "P":
            picture = Image.fromarray(colours).convert("P", palette=Image.Palette.ADAPTIVE)
            picture.save(tmp_path / "a.png", transparency=0)
        else:
            alpha = Image.fromarray(noise(6, 8, seed=1))
            picture = Image.fromarray(colours).convert(mode.removesuffix("A") if mode == "LA" else "RGB")
            picture.putalpha(alpha)
            picture.save(tmp_path / "a.png")
        assert Image.open(tmp_path / "a.png").mode == mode
        assert (np.asarray(read_picture(tmp_path / "a.png")) == colours).all()

    @pytest.mark.parametrize(
        ("mode", "ending"), [("1", "png"), ("L", "png"), ("L", "jpg"), ("CMYK", "jpg"), ("RGB", "webp"), ("L", "gif"),
                             ("CMYK", "tif"), ("RGB", "bmp")]
    )  # fmt: skip
    def test_any_mode_and_format_becomes_rgb(self, tmp_path: Path, mode: str, ending: str) -> None:
        picture = Image.fromarray(smooth(32, 48)).convert(mode)
        picture.save(tmp_path / f"a.{ending}")
        found = read_picture(tmp_path / f"a.{ending}")
        assert (found.mode, found.size) == ("RGB", (48, 32))
        assert np.abs(np.asarray(found).astype(int) - np.asarray(picture.convert("RGB"))).mean() < 6

    def test_16_bits_keep_their_upper_8(self, tmp_path: Path) -> None:
        levels = np.random.default_rng(0).integers(0, 65536, (6, 8), np.uint16)
        for name in ("a.png", "a.tif"):
            Image.fromarray(levels).save(tmp_path / name)
            assert (np.asarray(read_picture(tmp_path / name)) == (levels >> 8)[..., None]).all()

    def test_the_first_frame_counts(self, tmp_path: Path) -> None:
        frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
        frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
        assert (np.asarray(read_picture(tmp_path / "a.gif")) == [255, 0, 0]).all()

    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.chdir(tmp_path)
        Path("text.png").write_text("no image")
        Path("empty.png").touch()
        Path("folder").mkdir()
        Path("script.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\nshowpage\n")
        Image.fromarray(noise(64, 64, 3)).save("whole.png")
        Path("cut.png").write_bytes(Path("whole.png").read_bytes()[:5000])
        Image.fromarray(noise(64, 64, 3)).save("whole.jpg")
        Path("cut.jpg").write_bytes(Path("whole.jpg").read_bytes()[:2000])
        Image.fromarray(np.zeros((4, 4), np.float32)).save("float.tif")
        Image.fromarray(np.full((4, 4), 70000, np.int32)).save("int.tif")
        os.mkfifo("pipe.png")
        return tmp_path

    @pytest.mark.parametrize(
        ("name", "sentence"),
        [
            ("gone.png", r"there is no image file gone\.png; give a PNG, JPEG, WebP, BMP, GIF or TIFF image"),
            ("pipe.png", r"there is no image file pipe\.png; give a PNG.*"),
            ("nul\0.png", "there is no image file nul\0.*"),
            ("folder", r"folder is a folder; give the image files in it, such as folder/\*\.png"),
            ("text.png", r"text\.png is no image, or in no format that is read here; give a PNG.*"),
            ("empty.png", r"empty\.png is no image.*"),
            ("script.eps", r"script\.eps is no image.*"),
            ("cut.png", r"cut\.png cannot be read \(.*\); give a PNG.*"),
            ("cut.jpg", r"cut\.jpg cannot be read \(.*truncated.*\); give a PNG.*"),
            ("float.tif", r"float\.tif has more than 16 bits a pixel and channel; save it with 8 or 16"),
            ("int.tif", r"int\.tif has more than 16 bits a pixel and channel; save it with 8 or 16"),
        ],
    )
    def test_what_is_no_image_is_refused(self, folder: Path, name: str, sentence: str) -> None:
        with pytest.raises(DataError, match=f"^{sentence}$"):
            cut_squares(["whole.png", name], 16)

    @pytest.mark.parametrize(
        ("cap", "size"), [(64 * 64 - 1, "64x64 pixels"), (64 * 64, None)], ids=["beyond", "at the bound"]
    )
    def test_too_many_pixels_are_refused_before_they_are_decoded(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, cap: int, size: str | None
    ) -> None:
        monkeypatch.setattr(subject, "MOST_PIXELS", cap)
        if size is None:
            assert read_picture("whole.png").size == (64, 64)
            return
        with pytest.raises(DataError, match=f"^whole.png has {size}, and at most {cap:,} are read; make it smaller$"):
            read_picture("whole.png")

    @pytest.mark.parametrize("sides", [(12000, 12000), (60000, 60000)])
    def test_a_bomb_is_refused_without_a_warning(self, folder: Path, sides: tuple[int, int]) -> None:
        header = bytearray(Path("whole.png").read_bytes())
        header[16:24] = b"".join(side.to_bytes(4, "big") for side in sides)
        header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
        Path("bomb.png").write_bytes(header)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(DataError, match=r"^bomb\.png has .*, and at most 100,000,000 are read; make it"):
                read_picture("bomb.png")

    @pytest.mark.parametrize("ending", ["png", "jpg", "tif", "gif", "webp", "bmp"])
    def test_damaged_files_are_read_or_refused_in_one_sentence(self, tmp_path: Path, ending: str) -> None:
        random, path = np.random.default_rng(0), tmp_path / f"a.{ending}"
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(smooth(12, 16)).save(path, exif=exif)
        content = path.read_bytes()
        for _ in range(100):
            damaged = bytearray(content[: random.integers(len(content)) if random.random() < 0.2 else None])
            for place in random.integers(0, max(len(damaged), 1), 3 if len(damaged) else 0):
                damaged[place] = random.integers(256)
            path.write_bytes(damaged)
            try:
                assert cut_squares([path], 8).pixels.shape == (1, 8, 8, 3)
            except DataError as error:
                assert str(path) in str(error) and "\n" not in str(error)


def test_squares_know_the_sizes_of_what_they_were() -> None:
    assert Squares(noise(1, 8, 8, 3), [(3, 4)])[0:1].sizes == [(3, 4)]
