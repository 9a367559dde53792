"""Image files are read as they were meant, or refused in one sentence."""

import os
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from zellige.engine.files import pictures as subject
from zellige.engine.files.pictures import read_picture
from zellige.engine.files.squares import cut_squares
from zellige.errors import DataError

from .test_squares import noise, smooth

WIDE = r"has channels of signed numbers, floats or 32 bits, for which no .* are known; save it with 8 or 16 unsigned .*"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(tmp_path: Path, orientation: int) -> None:
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
def test_transparency_is_dropped(tmp_path: Path, mode: str) -> None:
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
def test_any_mode_and_format_becomes_rgb(tmp_path: Path, mode: str, ending: str) -> None:
    picture = Image.fromarray(smooth(32, 48)).convert(mode)
    picture.save(tmp_path / f"a.{ending}")
    found = read_picture(tmp_path / f"a.{ending}")
    assert (found.mode, found.size) == ("RGB", (48, 32))
    assert np.abs(np.asarray(found).astype(int) - np.asarray(picture.convert("RGB"))).mean() < 6


def test_16_bits_keep_their_upper_8(tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 65536, (6, 8), np.uint16)
    for name in ("a.png", "a.tif"):
        Image.fromarray(levels).save(tmp_path / name)
        assert (np.asarray(read_picture(tmp_path / name)) == (levels >> 8)[..., None]).all()


def test_the_first_frame_counts(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (np.asarray(read_picture(tmp_path / "a.gif")) == [255, 0, 0]).all()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("text.png").write_text("no image")
    Path("pointer.png").write_text("version https://git-lfs.github.com/spec/v1\n")
    Path("empty.png").touch()
    Path("folder").mkdir()
    Path("script.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\nshowpage\n")
    Image.fromarray(noise(64, 64, 3)).save("whole.png")
    Path("cut.png").write_bytes(Path("whole.png").read_bytes()[:5000])
    Image.fromarray(noise(64, 64, 3)).save("whole.jpg")
    Path("cut.jpg").write_bytes(Path("whole.jpg").read_bytes()[:2000])
    Image.fromarray(np.zeros((4, 4), np.float32)).save("float.tif")
    Image.fromarray(np.full((4, 4), 70000, np.int32)).save("int.tif")
    tifffile.imwrite("colours.tif", np.zeros((4, 4, 3), np.float32), photometric="rgb")
    os.mkfifo("pipe.png")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("gone.png", r"there is no image file gone\.png; give a PNG, JPEG, WebP, BMP, GIF or TIFF image"),
        ("pipe.png", r"pipe\.png cannot be read: it is a pipe and not a regular file; give a PNG.*"),
        ("nul\0.png", "there is no image file nul\0.*"),
        ("folder", r"folder is a folder; give the image files in it, such as folder/\*\.png"),
        ("text.png", r"text\.png is no image, or in no format that is read here; give a PNG.*"),
        ("pointer.png", r"pointer\.png is a pointer of Git LFS in place of the file, and not an image; give a PNG.*"),
        ("empty.png", r"empty\.png is no image.*"),
        ("script.eps", r"script\.eps is no image.*"),
        ("cut.png", r"cut\.png cannot be read \(.*\); give a PNG.*"),
        ("cut.jpg", r"cut\.jpg cannot be read \(.*truncated.*\); give a PNG.*"),
        (
            "colours.tif",
            r"colours\.tif is a TIFF picture that is damaged, or whose channels cannot be read here; give.*",
        ),
        ("float.tif", rf"float\.tif {WIDE}"),
        ("int.tif", rf"int\.tif {WIDE}"),
    ],
)
def test_what_is_no_image_is_refused(folder: Path, name: str, sentence: str) -> None:
    with pytest.raises(DataError, match=f"^{sentence}$"):
        cut_squares(["whole.png", name], 16)


@pytest.mark.parametrize(
    ("cap", "size"), [(64 * 64 - 1, "64x64 pixels"), (64 * 64, None)], ids=["beyond", "at the bound"]
)
def test_too_many_pixels_are_refused_before_they_are_decoded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, cap: int, size: str | None
) -> None:
    monkeypatch.setattr(subject, "MOST_PIXELS", cap)
    if size is None:
        assert read_picture("whole.png").size == (64, 64)
        return
    with pytest.raises(DataError, match=f"^whole.png has {size}, and at most {cap:,} are read; make it smaller$"):
        read_picture("whole.png")


@pytest.mark.parametrize("sides", [(12000, 12000), (60000, 60000)])
def test_a_bomb_is_refused_without_a_warning(folder: Path, sides: tuple[int, int]) -> None:
    header = bytearray(Path("whole.png").read_bytes())
    header[16:24] = b"".join(side.to_bytes(4, "big") for side in sides)
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    Path("bomb.png").write_bytes(header)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=r"^bomb\.png has .*, and at most 100,000,000 are read; make it"):
            read_picture("bomb.png")


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "gif", "webp", "bmp"])
def test_damaged_files_are_read_or_refused_in_one_sentence(tmp_path: Path, ending: str) -> None:
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


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int16, np.int8, np.float32])
@pytest.mark.parametrize("largest", [1, 255, 65535])
def test_other_numbers_than_8_or_16_unsigned_bits_are_refused(tmp_path: Path, dtype: type, largest: int) -> None:
    tifffile = pytest.importorskip("tifffile")
    levels = (np.arange(48).reshape(6, 8) * (largest / 47)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", levels, photometric="minisblack")
    with pytest.raises(DataError, match=f"a.tif {WIDE}"):
        read_picture(tmp_path / "a.tif")


def test_16_bits_where_white_is_0_are_inverted(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    levels = np.random.default_rng(0).integers(0, 65536, (6, 8), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", levels, photometric="miniswhite")
    assert (np.asarray(read_picture(tmp_path / "a.tif")) == (255 - (levels >> 8))[..., None]).all()


def test_16_bits_of_colours_keep_their_upper_8(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    levels = np.random.default_rng(0).integers(0, 65536, (6, 8, 3), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", levels, photometric="rgb")
    assert (np.asarray(read_picture(tmp_path / "a.tif")) == levels >> 8).all()


def test_12_bits_keep_their_upper_8(tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 4096, (1, 8), np.uint16)
    bits = "".join(f"{level:012b}" for level in levels[0])
    data = bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))
    entries = [(256, 4, 8), (257, 4, 1), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8), (278, 4, 1), (279, 4, 12)]
    header = b"II*\0" + (8 + len(data)).to_bytes(4, "little") + data + len(entries).to_bytes(2, "little")
    for tag, kind, value in entries:
        header += tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + (1).to_bytes(4, "little")
        header += value.to_bytes(4, "little")
    (tmp_path / "a.tif").write_bytes(header + bytes(4))
    assert (np.asarray(read_picture(tmp_path / "a.tif"))[..., 0] == levels >> 4).all()


def test_more_text_than_pillow_reads_is_a_sentence(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", "x" * 2 * 2**20, zip=True)
    Image.fromarray(noise(4, 4, 3)).save(tmp_path / "a.png", pnginfo=info)
    with pytest.raises(DataError, match=r"a.png holds more text than is read; save it again without its metadata$"):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nothing", b"\xff" * 40])
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_a_broken_exif_block_counts_as_none(tmp_path: Path, name: str, exif: bytes) -> None:
    image = Image.fromarray(smooth(16, 24))
    image.save(tmp_path / name)
    right = np.asarray(read_picture(tmp_path / name))
    image.save(tmp_path / name, exif=exif)
    assert (np.asarray(read_picture(tmp_path / name)) == right).all()


@pytest.mark.parametrize("compression", ["tiff_lzw", "jpeg", "tiff_deflate", "packbits"])
def test_compressed_tiffs_are_read(tmp_path: Path, compression: str) -> None:
    image = smooth(32, 48)
    Image.fromarray(image).save(tmp_path / "a.tif", compression=compression)
    assert np.abs(np.asarray(read_picture(tmp_path / "a.tif")).astype(int) - image).mean() < 3
