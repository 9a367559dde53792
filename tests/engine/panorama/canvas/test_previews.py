"""Reduced pictures of every format, which are read tile by tile."""

from pathlib import Path

import numpy as np
import pytest

from zellige.engine.files import pictures
from zellige.engine.files.preview import preview
from zellige.errors import DataError

from .painting import needs, noise, paint

FORMS = [(".tif", "deflate"), (".tif", "none"), (".tif", "zstd"), (".tif", "jpeg"), (".zarr", None), (".dzi", "png")]


@pytest.mark.parametrize(("extension", "compression"), FORMS)
def test_a_preview_is_the_mean_of_boxes_and_never_the_whole_picture_in_memory(
    tmp_path: Path, extension: str, compression: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(extension)
    if compression in ("zstd", "jpeg"):
        pytest.importorskip("imagecodecs")
    monkeypatch.setattr(pictures, "MOST_PIXELS", 1)  # Pillow would have to refuse
    picture = np.repeat(np.repeat(noise(66, 130), 8, axis=0), 8, axis=1)
    paint(tmp_path / f"a{extension}", picture, compression=compression)
    reduced = np.asarray(preview(tmp_path / f"a{extension}", max_width=130)).astype(int)
    assert np.abs(reduced - picture[::8, ::8]).max() <= (3 if compression == "jpeg" else 0)


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    paint(tmp_path / "a.zarr", noise(40, 600))
    shard = tmp_path / "a.zarr" / "0" / "c" / "0" / "0" / "1"
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match="a.zarr is damaged at row 0, column 512: "):
        preview(tmp_path / "a.zarr")


def test_a_missing_tile_is_named(tmp_path: Path) -> None:
    needs(".dzi")
    paint(tmp_path / "a.dzi", noise(40, 600))
    (tmp_path / "a_files" / "10" / "1_0.jpg").unlink()
    with pytest.raises(DataError, match="1_0.jpg cannot be read"):
        preview(tmp_path / "a.dzi")


@pytest.mark.parametrize("text", ["", "<Image/>", 'Format="png" Overlap="1" TileSize="256" Height="9" Width="9"'])
def test_a_file_that_is_no_deep_zoom_picture_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.dzi").write_text(text)
    with pytest.raises(DataError, match="Deep Zoom picture"):
        preview(tmp_path / "a.dzi")


@pytest.mark.parametrize("shape", [(600, 700), (4, 60, 70)])
def test_a_zarr_of_others_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    zarr = pytest.importorskip("zarr")
    group = zarr.create_group(tmp_path / "a.zarr")
    with pytest.raises(DataError, match="a.zarr cannot be read as a Zarr picture"):
        preview(tmp_path / "a.zarr")
    group.create_array("0", shape=shape, dtype="uint8")
    with pytest.raises(DataError, match="a.zarr"):
        preview(tmp_path / "a.zarr")
