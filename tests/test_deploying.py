"""The examples of docs/deploying.md run, with the files that they name."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .export.bundled import export_once, folder_of
from .test_docs import blocks, write_tiny

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

PAGE = "docs/deploying.md"
TEXT = (Path(__file__).parents[1] / PAGE).read_text()


@pytest.fixture(scope="module")
def emoji(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_once(folder_of(tmp_path_factory), "emoji").path


def block_with(words: str) -> str:
    (code,) = (code for code in blocks(PAGE, "python") if words in code)
    return code


def test_the_example_in_plain_onnxruntime_saves_images(
    emoji: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "emoji.onnx").write_bytes(emoji.read_bytes())
    code = block_with("import onnxruntime")
    assert "zellige" not in re.sub(r'"zellige\.\w+"', "", code)  # beside the keys of metadata
    values: dict[str, object] = {}
    exec(compile(code, PAGE, "exec"), values)
    images = values["images"]
    assert isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.shape == (8, 64, 64, 3)
    for k, image in enumerate(images):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"emoji-{k}.png")), image)
    assert capsys.readouterr().out == "onegan (8, 64, 64, 3)\n"


@pytest.mark.parametrize("words", ["open_model", "write_repository"])
def test_the_other_examples_with_that_file_run(
    words: str, emoji: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "emoji.onnx").write_bytes(emoji.read_bytes())
    values: dict[str, object] = {}
    exec(compile(block_with(words), PAGE, "exec"), values)
    assert ("model" in values) or (tmp_path / "repository/emoji/1/model.onnx").is_file()


def test_the_example_in_python_runs(tmp_path: Path) -> None:
    write_tiny(tmp_path / "planet.safetensors")
    values: dict[str, object] = {}
    exec(block_with("zellige.load").replace('"planet"', repr(str(tmp_path / "planet.safetensors"))), values)
    assert values["images"].shape[0] == 8  # type: ignore[attr-defined]


def test_the_container_s_commands_are_those_of_the_dockerfile() -> None:
    dockerfile = (Path(__file__).parents[1] / "Dockerfile").read_text()
    commands = [
        line for line in TEXT.splitlines() if re.match(r"docker (build|run --rm (--volume .*:/work\" )?zellige)", line)
    ]
    assert len(commands) == 4 and all(f"#   {line}\n" in dockerfile for line in commands)


def test_every_precision_of_an_export_is_in_the_table_of_runtimes() -> None:
    (header,) = re.findall(r"^\| runtime \|(.*)\|$", TEXT, re.MULTILINE)
    assert [word.strip() for word in header.split("|")] == ["fp32", "fp16", "bf16"]
    for runtime in ("ONNX Runtime", "OpenVINO", "OpenCV", "TensorRT-RTX"):
        assert re.search(rf"^\| {runtime} \d+\.\d+", TEXT, re.MULTILINE), f"{runtime} is without the version seen"


def test_what_was_not_verified_is_said() -> None:
    (section,) = re.findall(r"^### What is unverified\n\n(.*?)\n\n##", TEXT, re.DOTALL | re.MULTILINE)
    assert "Nothing of this ran on a GPU" in section and "No engine was loaded or run" in section


def test_links_lead_somewhere() -> None:
    headings = {heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert (
            target[1:] in headings
            if target.startswith("#")
            else (Path(__file__).parents[1] / "docs" / target).is_file()
        )
