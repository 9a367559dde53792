import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from zellige.errors import DataError, EmptyDataError
from zellige.training.data.folder import ImageFolder
from zellige.training.systems.coco_gan.training import assemble

NOISE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write an image below the folder."""

    def write(pixels: np.ndarray | Image.Image, name: str = "a.png", **options: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, **options)
        return path

    return write


def flat(value: int, size: int = 8) -> np.ndarray:
    return np.full((size, size, 3), value, np.uint8)


class TestReading:
    @pytest.mark.parametrize("suffix", ["bmp", "gif", "png", "PNG", "tif", "tiff", "webp"])
    def test_formats(self, tmp_path: Path, save: Save, suffix: str) -> None:
        save(flat(200), f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
        np.testing.assert_array_equal(ImageFolder(tmp_path, (8, 8)).image(0), flat(200))

    @pytest.mark.parametrize("suffix", ["jpg", "JPEG"])
    def test_jpeg(self, tmp_path: Path, save: Save, suffix: str) -> None:
        save(flat(200), f"a.{suffix}")
        np.testing.assert_allclose(ImageFolder(tmp_path, (8, 8)).image(0), flat(200), atol=2)

    def test_folders_are_searched_to_the_bottom_in_the_order_of_paths(self, tmp_path: Path, save: Save) -> None:
        for value, name in [(3, "b.png"), (1, "a/z.png"), (2, "a.png")]:
            save(flat(value), name)
        folder = ImageFolder(tmp_path, (8, 8))
        assert [path.relative_to(tmp_path).as_posix() for path in folder.paths] == ["a/z.png", "a.png", "b.png"]
        assert [folder.image(k)[0, 0, 0] for k in range(3)] == [1, 2, 3]

    def test_other_files_are_left_alone(self, tmp_path: Path, save: Save) -> None:
        save(flat(1))
        (tmp_path / "notes.txt").write_text("not an image")
        (tmp_path / "folder.png").mkdir()
        folder = ImageFolder(tmp_path, (8, 8))
        assert len(folder) == 1 and not folder.unreadable

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_orientation_tags_are_honoured(self, tmp_path: Path, save: Save, orientation: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(NOISE[:16, :16], exif=exif)
        turns = [
            lambda a: a,
            lambda a: a[:, ::-1],
            lambda a: a[::-1, ::-1],
            lambda a: a[::-1],
            lambda a: a.swapaxes(0, 1),
            lambda a: np.rot90(a, -1),
            lambda a: a[::-1, ::-1].swapaxes(0, 1),
            lambda a: np.rot90(a),
        ]
        upright = turns[orientation - 1](NOISE[:16, :16])
        np.testing.assert_array_equal(ImageFolder(tmp_path, (16, 16)).image(0), upright)

    def test_transparency_is_dropped(self, tmp_path: Path, save: Save) -> None:
        colours = NOISE[:8, :8]
        save(np.concatenate([colours, NOISE[8:16, :8, :1]], axis=-1))
        np.testing.assert_array_equal(ImageFolder(tmp_path, (8, 8)).image(0), colours)

    def test_palettes_are_looked_up(self, tmp_path: Path, save: Save) -> None:
        picture = Image.fromarray(NOISE[:8, :8]).quantize(64)
        save(picture, "a.png", transparency=0)
        np.testing.assert_array_equal(ImageFolder(tmp_path, (8, 8)).image(0), np.asarray(picture.convert("RGB")))

    def test_grey_is_repeated_in_three_channels(self, tmp_path: Path, save: Save) -> None:
        save(NOISE[:8, :8, 0])
        np.testing.assert_array_equal(ImageFolder(tmp_path, (8, 8)).image(0), NOISE[:8, :8, :1].repeat(3, axis=2))

    @pytest.mark.parametrize("suffix", ["png", "tif"])
    def test_16_bit_grey_keeps_its_upper_byte(self, tmp_path: Path, save: Save, suffix: str) -> None:
        ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
        save(ramp, f"a.{suffix}")
        upper = (ramp >> 8).astype(np.uint8)[:, :, None].repeat(3, axis=2)
        np.testing.assert_array_equal(ImageFolder(tmp_path, (8, 8)).image(0), upper)

    def test_black_and_white_is_0_and_255(self, tmp_path: Path, save: Save) -> None:
        save(Image.fromarray(NOISE[:8, :8, 0]).convert("1", dither=Image.Dither.NONE))
        assert set(ImageFolder(tmp_path, (8, 8)).image(0).flat) == {0, 255}

    def test_an_animation_gives_its_first_picture(self, tmp_path: Path, save: Save) -> None:
        frames = [Image.fromarray(flat(value)) for value in (10, 200)]
        save(frames[0], "a.gif", save_all=True, append_images=frames[1:])
        np.testing.assert_array_equal(ImageFolder(tmp_path, (8, 8)).image(0), flat(10))


class TestFaults:
    @pytest.fixture
    def damaged(self, tmp_path: Path, save: Save) -> Path:
        save(flat(1), "good.png")
        for name, options in [("cut.jpg", {}), ("cut.png", {}), ("progressive.jpg", {"progressive": True})]:
            path = save(NOISE, name, **options)
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        (tmp_path / "empty.png").write_bytes(b"")
        (tmp_path / "text.webp").write_text("hello")
        return tmp_path

    DAMAGED = ("cut.jpg", "cut.png", "empty.png", "progressive.jpg", "text.webp")

    def test_unreadable_files_are_left_out(self, damaged: Path) -> None:
        assert [path.name for path in ImageFolder(damaged, (8, 8)).paths] == ["good.png"]

    def test_unreadable_files_are_named_each_with_its_reason(self, damaged: Path) -> None:
        unreadable = ImageFolder(damaged, (8, 8)).unreadable
        assert sorted(path.name for path in unreadable) == sorted(self.DAMAGED)
        assert all(": " in reason for reason in unreadable.values())
        assert "truncated" in unreadable[damaged / "cut.jpg"].lower()

    def test_unreadable_files_are_counted_and_named_in_one_warning(
        self, damaged: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING):
            ImageFolder(damaged, (8, 8))
        (record,) = caplog.records
        assert "5 unreadable files" in record.getMessage()
        assert all(name in record.getMessage() for name in self.DAMAGED)

    def test_a_long_list_is_shortened(self, tmp_path: Path, save: Save, caplog: pytest.LogCaptureFixture) -> None:
        save(flat(1), "z.png")
        for k in range(8):
            (tmp_path / f"{k}.png").write_bytes(b"")
        ImageFolder(tmp_path, (8, 8))
        message = caplog.records[0].getMessage()
        assert message.endswith("0.png, 1.png, 2.png, 3.png, 4.png and 3 more")

    def test_a_good_folder_gives_no_warning(self, tmp_path: Path, save: Save, caplog: pytest.LogCaptureFixture) -> None:
        save(flat(1))
        ImageFolder(tmp_path, (8, 8))
        assert not caplog.records

    def test_an_empty_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(EmptyDataError, match=r"no readable image \(0 candidates\); put files ending in \.bmp, .*"):
            ImageFolder(tmp_path, (8, 8))

    def test_a_folder_of_unreadable_files_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "empty.png").write_bytes(b"")
        with pytest.raises(EmptyDataError, match=r"no readable image \(1 candidates\)"):
            ImageFolder(tmp_path, (8, 8))

    @pytest.mark.parametrize("kind", ["missing", "file"])
    def test_what_is_no_folder_is_refused(self, tmp_path: Path, save: Save, kind: str) -> None:
        path = save(flat(1)) if kind == "file" else tmp_path / "missing"
        with pytest.raises(DataError, match=f"{path.name} is not a folder; give a folder of images or"):
            ImageFolder(path, (8, 8))


class TestSplits:
    @pytest.mark.parametrize(("count", "held_out"), [(10, [0]), (23, [0, 10, 20]), (30, [0, 10, 20])])
    def test_every_tenth_picture_is_held_out(self, tmp_path: Path, save: Save, count: int, held_out: list[int]) -> None:
        for k in range(count):
            save(flat(k), f"{k:02}.png")
        kept = [path.stem for path in ImageFolder(tmp_path, (8, 8), "held-out").paths]
        trained = [path.stem for path in ImageFolder(tmp_path, (8, 8)).paths]
        assert kept == [f"{k:02}" for k in held_out]
        assert sorted(kept + trained) == [f"{k:02}" for k in range(count)]

    def test_fewer_than_ten_pictures_serve_both(self, tmp_path: Path, save: Save) -> None:
        for k in range(9):
            save(flat(k), f"{k}.png")
        assert len(ImageFolder(tmp_path, (8, 8))) == len(ImageFolder(tmp_path, (8, 8), "held-out")) == 9

    def test_unreadable_files_do_not_count(self, tmp_path: Path, save: Save) -> None:
        (tmp_path / "00.png").write_bytes(b"")
        for k in range(1, 11):
            save(flat(k), f"{k:02}.png")
        assert [path.stem for path in ImageFolder(tmp_path, (8, 8), "held-out").paths] == ["01"]

    def test_any_index_means_a_picture(self, tmp_path: Path, save: Save) -> None:
        for k in range(3):
            save(flat(k), f"{k}.png")
        folder = ImageFolder(tmp_path, (8, 8))
        assert [folder.image(index)[0, 0, 0] for index in (0, 4, 2**31 - 1)] == [0, 1, (2**31 - 1) % 3]


class TestShape:
    def test_a_picture_of_its_own_size_keeps_its_pixels(self, tmp_path: Path, save: Save) -> None:
        save(NOISE)
        np.testing.assert_array_equal(ImageFolder(tmp_path, (24, 32)).image(0), NOISE)

    def test_a_wider_picture_is_cropped_at_its_centre(self, tmp_path: Path, save: Save) -> None:
        save(NOISE)
        np.testing.assert_array_equal(ImageFolder(tmp_path, (24, 24)).image(0), NOISE[:, 4:28])

    def test_a_higher_picture_is_cropped_at_its_centre(self, tmp_path: Path, save: Save) -> None:
        save(NOISE)
        np.testing.assert_array_equal(ImageFolder(tmp_path, (12, 32)).image(0), NOISE[6:18])

    def test_a_cyclic_picture_is_scaled_whole(self, tmp_path: Path, save: Save) -> None:
        stripes = np.repeat(np.array([0, 90, 180, 255], np.uint8), 8)[None, :, None].repeat(24, 0).repeat(3, 2)
        save(stripes)
        image = ImageFolder(tmp_path, (24, 16), cyclic=(False, True)).image(0)
        assert image[12, [1, 6, 10, 14], 0].tolist() == pytest.approx([0, 90, 180, 255], abs=12)

    @pytest.mark.parametrize("resolution", [(5, 7), (48, 64), (100, 3)])
    def test_any_resolution_is_reached(self, tmp_path: Path, save: Save, resolution: tuple[int, int]) -> None:
        save(NOISE)
        assert ImageFolder(tmp_path, resolution).image(0).shape == (*resolution, 3)


class TestCrops:
    @pytest.fixture
    def panorama(self, tmp_path: Path, save: Save) -> ImageFolder:
        """256 x 768 pixels, micro patches of 64: the published panoramas."""
        save(np.random.default_rng(1).integers(0, 256, (256, 768, 3), np.uint8))
        return ImageFolder(tmp_path, (256, 768), cyclic=(False, True))

    def test_a_crop_from_start_column_11_is_columns_704_to_767_then_0_to_63(self, panorama: ImageFolder) -> None:
        crop, whole = panorama.crop(0, 64, 11 * 64, (128, 128)), panorama.image(0)
        np.testing.assert_array_equal(crop, np.concatenate([whole[64:192, 704:], whole[64:192, :64]], axis=1))

    @pytest.mark.parametrize(
        ("row", "column", "span", "patch"), [(0, 0, 2, 64), (1, 7, 2, 64), (2, 11, 2, 64), (5, 3, 4, 16), (0, 0, 4, 64)]
    )
    def test_micro_patches_tile_back_to_the_macro_patch(
        self, panorama: ImageFolder, row: int, column: int, span: int, patch: int
    ) -> None:
        micro = [
            panorama.crop(0, (row + down) * patch, (column + across) * patch, (patch, patch))
            for across in range(span)
            for down in range(span)
        ]
        tiled = assemble(torch.from_numpy(np.stack(micro)).permute(0, 3, 1, 2), span, span)[0].permute(1, 2, 0)
        macro = panorama.crop(0, row * patch, column * patch, (span * patch, span * patch))
        np.testing.assert_array_equal(tiled, macro)

    def test_fractional_corners_are_rounded(self, panorama: ImageFolder) -> None:
        np.testing.assert_array_equal(panorama.crop(0, 9.6, 767.7, (8, 8)), panorama.crop(0, 10, 0, (8, 8)))
