import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from zellige.cli import main
from zellige.engine.library import BUNDLED
from zellige.errors import TaskError
from zellige.export.formats import export_engine, export_repository
from zellige.export.tensorrt import export_tensorrt

from .building import builds
from .bundled import FILES, MODELS, Exported

for package in ("onnx", "onnxscript"):
    pytest.importorskip(package)

ModelFile = Callable[..., Path]


def test_every_bundled_model_has_a_task_here() -> None:
    assert {path.stem for path in BUNDLED.glob("*.safetensors")} == MODELS.keys() and MODELS


@builds
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "precision"), [(name, precision) for flavour, name, precision in FILES if flavour == "portable"]
)
def test_engines_are_built_for_every_bundled_model(
    name: str, precision: str, tmp_path: Path, bundled: Callable[..., Exported]
) -> None:
    out = tmp_path / "x.engine"
    report = export_tensorrt(
        bundled(name, "portable", precision).path, out, flavour="rtx", targets=("sm_120",), profile=((1, 2, 4),)
    )
    assert (report["flavour"], report["targets"]) == ("rtx", ["sm_120"])
    assert report["bytes"] == out.stat().st_size > 100_000
    assert report["metadata"]["zellige.model"] == name and report["metadata"]["zellige.precision"] == precision


@builds
@pytest.mark.slow
@pytest.mark.parametrize(("task", "precision"), [("cluster", "bf16"), ("recompose", "fp16")])
def test_engines_take_bytes_of_images(task: str, precision: str, tmp_path: Path, onegan_file: ModelFile) -> None:
    out = tmp_path / "x.engine"
    report = export_engine(
        str(onegan_file()), out, task=task, flavour="rtx", precision=precision, targets=("sm_86",),
        profiles=((1, 2, 4),),
    )  # fmt: skip
    assert {value["dtype"] for value in report["inputs"]} == {"uint8"}
    assert (report["format"], report["flavour"], report["graph"]) == ("tensorrt", "rtx", "portable")
    assert report["targets"] == ["sm_86"] and report["bytes"] == out.stat().st_size > 100_000
    assert report["verification"] and report["metadata"]["zellige.precision"] == precision


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, model_file: ModelFile) -> dict[str, Any]:
    """Of a task that is not the usual one, by the command, which prints one object; tests read it."""
    out = tmp_path_factory.mktemp("repository")
    words: list[Any] = ["export", model_file("plane"), "--to", "triton-repository", "--task", "patches", "--out", out]
    printed = StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed), pytest.raises(SystemExit) as ended:
        patch.setattr("sys.argv", ["zellige", *map(str, words), "--max-batch", "4", "--serve-on", "cpu", "--json"])
        main()
    assert not ended.value.code
    return dict(json.loads(printed.getvalue()))


def test_a_repository_holds_the_verified_file(repository: dict[str, Any]) -> None:
    file = Path(repository["out"], repository["name"], "1", "model.onnx")
    assert str(file) in repository["files"] and repository["verification"]
    assert repository["format"] == "triton-repository" and "max_batch_size: 4" in repository["config"]
    assert onnxruntime.InferenceSession(file).get_inputs()[0].name == "latent"


def test_another_task_gets_a_name_of_its_own(repository: dict[str, Any]) -> None:
    assert repository["name"] == "plane-patches"


def test_repositories_of_other_flavours_are_refused(tmp_path: Path, model_file: ModelFile) -> None:
    with pytest.raises(
        TaskError, match=r"^there are no repositories of the flavour 'rtx'; use portable .* or full .*$"
    ):
        export_repository(str(model_file("plane")), tmp_path / "models", flavour="rtx")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--profile", "1,8"], "'1,8' is no profile; write the least, usual and largest batch, such as 1,8,32"),
        (["--flavour", "consumer"], "there is no flavour 'consumer' of TensorRT; use 'rtx' or 'full'"),
    ],
)
def test_the_command_refuses_in_a_sentence(
    words: list[str], sentence: str, tmp_path: Path, model_file: ModelFile, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "x.engine"
    monkeypatch.setattr(
        "sys.argv", ["zellige", "export", str(model_file("plane")), "--to", "tensorrt", "--out", str(out), *words]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and capsys.readouterr().err.strip() == f"zellige: {sentence}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--profile", "8,1,2"], "the profile 8,1,2 is not the least, usual and largest batch in ascending order"),
        (["--flavour", "rtx", "--target", "sm_90"], "TensorRT-RTX does not build for sm_90; it does for sm_75"),
        (["--flavour", "full"], "building TensorRT engines needs the package 'tensorrt'; install it with: pip install"),
        (["--flavour", "full", "--to", "triton-repository"], "building TensorRT engines needs the package 'tensorrt'"),
    ],
)
def test_what_no_model_can_change_is_refused_before_one_is_read(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    given = ["export", str(tmp_path / "gone.safetensors"), "--to", "tensorrt", "--out", str(tmp_path / "x"), *words]
    monkeypatch.setattr("sys.argv", ["zellige", *given])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and capsys.readouterr().err.startswith(f"zellige: {sentence}")
    assert list(tmp_path.iterdir()) == []
