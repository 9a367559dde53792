"""The working folder of a user, and the command in it."""

import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zellige.cli import main
from zellige.engine.checkpoint.file import write_checkpoint

from ..engine.conftest import model_file, onegan_file
from ..engine.systems.onegan.tiny_onegan import one_thread
from .command import Run

__all__ = ["model_file", "one_thread", "onegan_file"]

ModelFile = Callable[..., Path]


class Touch:
    """Unpickled, it makes a file."""

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("hit"),)


def picture(seed: int, height: int, width: int) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_file: ModelFile, onegan_file: ModelFile) -> Path:
    """Two models of different systems, images of three sizes, and all kinds of files that are none of both."""
    monkeypatch.chdir(tmp_path)
    content = model_file("cylinder").read_bytes()
    Path("cylinder.safetensors").write_bytes(content)
    Path("birds.safetensors").write_bytes(onegan_file().read_bytes())
    Path("cut.safetensors").write_bytes(content[: len(content) // 2])
    Path("text.safetensors").write_text("not a model\n")
    for name in ("evil.pt", "evil.safetensors"):
        Path(name).write_bytes(pickle.dumps(Touch()))
    state = {"system": "coco-gan", "config": {}, "details": {"progress": {"step": 3}}}
    write_checkpoint("state.safetensors", {"number.updates": torch.zeros(())}, **state)
    Path("plain.txt").write_text("a file, where a folder should be")
    Path("text.png").write_text("no image")
    Path("older").mkdir()
    Path("older/a-mask.png").write_bytes(b"older")
    Path("older.csv").write_bytes(b"older")
    Path("empty").mkdir()
    Path("empty/notes.txt").write_text("no picture")
    Path("pictures").mkdir()
    Image.new("RGB", (12, 12), "red").save("pictures/red.png")
    picture(0, 64, 64).save("a.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    picture(1, 50, 90).save("b.jpg", exif=exif)
    rgba = picture(2, 70, 64)
    rgba.putalpha(128)
    rgba.save("c, d.png")
    Path("other").mkdir()
    picture(3, 64, 64).save("other/a.png")
    for k, place in enumerate(("objects", "backgrounds")):
        Path("scenes", place).mkdir(parents=True)
        picture(4 + k, 64, 64).save(f"scenes/{place}/a.png")
    return tmp_path


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command; its exit status, stdout and stderr."""

    def command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["zellige", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), *capfd.readouterr()

    return command
