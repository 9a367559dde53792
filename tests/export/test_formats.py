import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from zellige.engine.cli import main
from zellige.engine.library import BUNDLED, list_models
from zellige.errors import TaskError
from zellige.export.formats import export_engine, export_repository
from zellige.export.tasks import TASKS

for package in ("onnx", "onnxscript"):
    pytest.importorskip(package)

ModelFile = Callable[..., Path]
# A pass over one patch of a COCO-GAN is all of its network; a picture would only be larger.
MODELS = {row["name"]: TASKS[row["system"]][-1 if row["system"] == "coco-gan" else 0] for row in list_models()}
rtx = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed")


def test_every_bundled_model_has_a_task_here() -> None:
    assert {path.stem for path in BUNDLED.glob("*.safetensors")} == MODELS.keys() and MODELS


@rtx
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_engines_are_built_for_every_bundled_model(name: str, precision: str, tmp_path: Path) -> None:
    out = tmp_path / "x.engine"
    report = export_engine(
        name, out, task=MODELS[name], flavour="rtx", precision=precision, targets=("sm_120",), profiles=((1, 2, 4),)
    )
    assert (report["format"], report["flavour"], report["graph"]) == ("tensorrt", "rtx", "portable")
    assert report["targets"] == ["sm_120"] and report["bytes"] == out.stat().st_size > 100_000
    assert report["verification"] and report["metadata"]["zellige.precision"] == precision


@rtx
@pytest.mark.slow
@pytest.mark.parametrize("task", ["cluster", "recompose"])
def test_engines_take_bytes_of_images(task: str, tmp_path: Path, onegan_file: ModelFile) -> None:
    report = export_engine(
        str(onegan_file()), tmp_path / "x.engine", task=task, flavour="rtx", precision="fp16", targets=("sm_86",),
        profiles=((1, 2, 4),),
    )  # fmt: skip
    assert {value["dtype"] for value in report["inputs"]} == {"uint8"}


def test_a_repository_holds_the_verified_file(tmp_path: Path, model_file: ModelFile) -> None:
    report = export_repository(str(model_file("plane")), tmp_path / "models", max_batch=4, device="cpu")
    file = tmp_path / "models" / "plane" / "1" / "model.onnx"
    assert str(file) in report["files"] and report["verification"]
    assert report["format"] == "triton-repository" and "max_batch_size: 4" in report["config"]
    assert onnxruntime.InferenceSession(file).get_inputs()[0].name == "latent"


def test_another_task_gets_a_name_of_its_own(tmp_path: Path, model_file: ModelFile) -> None:
    report = export_repository(str(model_file("plane")), tmp_path / "models", task="patches", device="cpu")
    assert report["name"] == "plane-patches"


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


def test_the_command_prints_one_object_for_a_repository(
    tmp_path: Path, model_file: ModelFile, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words: list[Any] = ["export", model_file("plane"), "--to", "triton-repository", "--out", tmp_path / "m", "--json"]
    monkeypatch.setattr("sys.argv", ["zellige", *map(str, words), "--serve-on", "cpu"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert json.loads(capsys.readouterr().out)["name"] == "plane"
