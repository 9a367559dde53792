import io
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from zellige.errors import DataError, EmptyDataError
from zellige.training.data.folder import ImageFolder
from zellige.training.data.listing import is_held_out, list_pictures, mark_of
from zellige.training.systems.coco_gan.training import assemble

from ..sides import fill, noise, png

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
        paths = list(ImageFolder(tmp_path, (8, 8)).listing.marks)
        assert [path.relative_to(tmp_path).as_posix() for path in paths] == ["a/z.png", "a.png", "b.png"]

    def test_other_files_are_left_alone(self, tmp_path: Path, save: Save) -> None:
        save(flat(1))
        (tmp_path / "notes.txt").write_text("not an image")
        (tmp_path / "folder.png").mkdir()
        folder = ImageFolder(tmp_path, (8, 8))
        assert len(folder) == 1 and not folder.listing.left_out

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


class TestOneReader:
    """A file that the tasks refuse is left out, with the tasks' own reason, and none ends in an error of Pillow's."""

    @staticmethod
    def reason(tmp_path: Path, save: Save) -> str:
        save(flat(1), "good.png")
        folder = ImageFolder(tmp_path, (8, 8))
        assert [path.name for path in folder.paths] == ["good.png"]
        (reason,) = folder.listing.left_out.values()
        return reason

    def test_postscript_is_not_run(self, tmp_path: Path, save: Save) -> None:
        (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n")
        assert "is no image, or in no format that is read here" in self.reason(tmp_path, save)

    def test_a_format_that_pillow_knows_and_the_tasks_do_not(self, tmp_path: Path, save: Save) -> None:
        save(flat(9), "a.png", format="PPM")
        assert "is no image, or in no format that is read here" in self.reason(tmp_path, save)

    def test_more_pixels_than_are_read(self, tmp_path: Path, save: Save) -> None:
        save(Image.new("1", (10_001, 10_000)), "a.png")
        assert "has 10001x10000 pixels, and at most 100,000,000 are read" in self.reason(tmp_path, save)

    @pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.float32])
    def test_numbers_of_more_than_16_bits(self, dtype: Any, tmp_path: Path, save: Save) -> None:
        tifffile = pytest.importorskip("tifffile")
        tifffile.imwrite(tmp_path / "a.tif", np.full((8, 8), 70_000, dtype))
        assert "has channels of signed numbers, floats or 32 bits" in self.reason(tmp_path, save)

    def test_a_broken_exif_block(self, tmp_path: Path, save: Save) -> None:
        save(flat(9), "a.png", exif=b"Exif\0\0no tags at all")
        assert len(ImageFolder(tmp_path, (8, 8))) == 1  # the picture is sound, and stays as it lies

    def test_more_text_than_pillow_reads(self, tmp_path: Path, save: Save) -> None:
        text = PngInfo()
        for k in range(70):
            text.add_text(f"key {k}", "x" * 2**20, zip=True)
        save(flat(9), "a.png", pnginfo=text)
        assert self.reason(tmp_path, save).startswith("holds more text than is read")


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

    def test_unreadable_files_are_left_out_each_with_its_reason(self, damaged: Path) -> None:
        folder = ImageFolder(damaged, (8, 8))
        assert [path.name for path in folder.paths] == ["good.png"]
        assert sorted(path.name for path in folder.listing.left_out) == sorted(self.DAMAGED)
        assert "cannot be read (image file is truncated" in folder.listing.left_out[damaged / "cut.png"]
        assert folder.listing.left_out[damaged / "empty.png"] == "is no image, or in no format that is read here"

    def test_they_are_counted_and_named_in_one_warning(self, damaged: Path, caplog: pytest.LogCaptureFixture) -> None:
        ImageFolder(damaged, (8, 8))
        (record,) = caplog.records
        assert "6 pictures found, 1 to train on, " in record.getMessage()
        assert ", 5 left out: cut.jpg cannot be read (" in record.getMessage()
        assert all(name in record.getMessage() for name in self.DAMAGED)

    def test_a_long_list_is_shortened(self, tmp_path: Path, save: Save, caplog: pytest.LogCaptureFixture) -> None:
        save(flat(1), "z.png")
        for k in range(8):
            (tmp_path / f"{k}.png").write_bytes(b"")
        ImageFolder(tmp_path, (8, 8))
        message = caplog.records[0].getMessage()
        assert "4.png is no image" in message and "5.png" not in message and message.endswith("; and 3 more")

    def test_a_good_folder_gives_no_warning(self, tmp_path: Path, save: Save, caplog: pytest.LogCaptureFixture) -> None:
        save(flat(1))
        ImageFolder(tmp_path, (8, 8))
        assert not caplog.records

    def test_a_good_folder_is_counted(self, tmp_path: Path, save: Save, caplog: pytest.LogCaptureFixture) -> None:
        fill(tmp_path, noise(8, 8), 5, {1, 2})
        with caplog.at_level(logging.INFO):
            ImageFolder(tmp_path, (8, 8))
        assert caplog.messages == [f"{tmp_path}: 5 pictures found, 3 to train on, 2 held out, 0 left out"]

    def test_an_empty_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(EmptyDataError, match=r"no readable image, of 0 candidates; put files ending in \.bmp, .*"):
            ImageFolder(tmp_path, (8, 8))

    def test_a_folder_of_unreadable_files_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "empty.png").write_bytes(b"")
        with pytest.raises(EmptyDataError, match=r"no readable image, of 1 candidates \(empty\.png is no image"):
            ImageFolder(tmp_path, (8, 8))

    @pytest.mark.parametrize("kind", ["missing", "file"])
    def test_what_is_no_folder_is_refused(self, tmp_path: Path, save: Save, kind: str) -> None:
        path = save(flat(1)) if kind == "file" else tmp_path / "missing"
        with pytest.raises(DataError, match=f"{path.name} is not a folder; give a folder of images or"):
            ImageFolder(path, (8, 8))

    def test_a_picture_that_vanishes_later_is_named(self, tmp_path: Path, save: Save) -> None:
        path = save(flat(1))
        folder = ImageFolder(tmp_path, (8, 8))
        path.unlink()
        with pytest.raises(DataError, match="there is no image file"):
            folder.image(0)


class TestLinks:
    @pytest.fixture
    def outside(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("outside")
        (folder / "far.png").write_bytes(png(flat(5)))
        return folder

    def test_links_to_folders_are_followed(self, outside: Path, tmp_path: Path, save: Save) -> None:
        save(flat(1), "near.png")
        (tmp_path / "link").symlink_to(outside)
        assert [path.name for path in ImageFolder(tmp_path, (8, 8)).listing.marks] == ["far.png", "near.png"]

    def test_links_in_a_circle_end(self, outside: Path, tmp_path: Path, save: Save) -> None:
        save(flat(1), "sub/near.png")
        (tmp_path / "sub/up").symlink_to(tmp_path)
        (outside / "back").symlink_to(tmp_path / "sub")
        (tmp_path / "link").symlink_to(outside)
        listing = ImageFolder(tmp_path, (8, 8)).listing
        assert [path.name for path in listing.marks] == ["far.png", "near.png"]
        assert set(listing.left_out.values()) == {"leads to a folder that is searched already"}
        assert [str(path.relative_to(tmp_path)) for path in listing.left_out] == ["sub/up", "link/back"]

    def test_a_link_to_nothing_and_a_pipe_are_left_out(self, tmp_path: Path, save: Save) -> None:
        save(flat(1), "near.png")
        (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
        os.mkfifo(tmp_path / "pipe.png")
        left_out = ImageFolder(tmp_path, (8, 8)).listing.left_out
        assert {path.name: reason for path, reason in left_out.items()} == {
            "gone.png": "is a link that leads nowhere", "pipe.png": "is no regular file",
        }  # fmt: skip


class TestSplits:
    @staticmethod
    def sides(folder: Path) -> tuple[set[str], set[str]]:
        train = ImageFolder(folder, (8, 8))
        return {path.name for path in train.paths}, {path.name for path in train.on("held-out").paths}

    def test_a_side_is_decided_by_the_content(self, tmp_path: Path) -> None:
        fill(tmp_path, noise(8, 8), 5, {1, 2})
        assert self.sides(tmp_path) == ({"000.png", "003.png", "004.png"}, {"001.png", "002.png"})

    def test_opening_a_side_is_turning_to_it(self, tmp_path: Path) -> None:
        fill(tmp_path, noise(8, 8), 5, {1, 2})
        kept = ImageFolder(tmp_path, (8, 8), "held-out")
        assert kept.paths == ImageFolder(tmp_path, (8, 8)).on("held-out").paths
        np.testing.assert_array_equal(kept.image(1), kept.on("train").on("held-out").image(1))

    def test_about_one_picture_in_ten_is_held_out(self) -> None:
        share = np.mean([is_held_out(mark_of(io.BytesIO(bytes([k // 256, k % 256])))) for k in range(4000)])
        assert 0.08 < share < 0.12

    def test_pictures_that_are_added_move_no_other(self, tmp_path: Path) -> None:
        fill(tmp_path, noise(8, 8), 12, {1, 2})
        train, kept = self.sides(tmp_path)
        for path in fill(tmp_path / "0", lambda k: flat(k), 5, {3}).iterdir():
            path.rename(tmp_path / f"-{path.name}")  # before all others
        more_train, more_kept = self.sides(tmp_path)
        assert train < more_train and kept < more_kept

    def test_a_renamed_picture_and_a_copy_stay_on_their_side(self, tmp_path: Path) -> None:
        fill(tmp_path, noise(8, 8), 3, {2})
        for path in list(tmp_path.iterdir()):
            shutil.copy(path, tmp_path / f"copy of {path.name}")
            path.rename(tmp_path / f"moved {path.name}")
        train, kept = self.sides(tmp_path)
        assert len(train) == 4 and len(kept) == 2

    def test_a_side_without_a_picture_takes_all_and_says_so(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        fill(tmp_path, noise(8, 8), 4)
        train, kept = self.sides(tmp_path)
        assert train == kept and len(kept) == 4
        assert "is held out, so those of training are used instead" in caplog.text

    def test_any_index_means_a_picture(self, tmp_path: Path) -> None:
        fill(tmp_path, lambda k: flat(k), 3)
        folder = ImageFolder(tmp_path, (8, 8))
        first, second = folder.image(0), folder.image(1)
        for index, image in ((3, first), (4, second), (3 * 2**40, first)):
            np.testing.assert_array_equal(folder.image(index), image)


class TestDigest:
    def test_it_is_that_of_the_contents_whatever_their_names(self, tmp_path: Path) -> None:
        fill(tmp_path / "a", noise(8, 8), 3)
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        (tmp_path / "b/000.png").rename(tmp_path / "b/z.png")
        (tmp_path / "b/other.txt").touch()
        assert list_pictures(tmp_path / "a").digest == list_pictures(tmp_path / "b").digest

    def test_another_picture_changes_it(self, tmp_path: Path) -> None:
        fill(tmp_path, noise(8, 8), 3)
        before = list_pictures(tmp_path).digest
        (tmp_path / "more.png").write_bytes(png(flat(7)))
        assert list_pictures(tmp_path).digest != before

    def test_changes_are_counted(self, tmp_path: Path) -> None:
        fill(tmp_path, noise(8, 8), 5)
        before = [int(mark) for mark in list_pictures(tmp_path).content()]
        (tmp_path / "000.png").unlink()
        (tmp_path / "001.png").unlink()
        (tmp_path / "more.png").write_bytes(png(flat(7)))
        assert list_pictures(tmp_path).changes(before) == (1, 2)


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
