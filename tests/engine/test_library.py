import json
import logging
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import zellige
from zellige.engine.checkpoint.faults import AllocationError
from zellige.engine.checkpoint.file import read_header, read_tensors, write_checkpoint
from zellige.engine.library import BUNDLED, find, list_models, load
from zellige.engine.systems import SYSTEMS
from zellige.engine.systems.coco_gan.model import CocoGan
from zellige.errors import CheckpointError, DeviceError, UnknownModelError, ZelligeError

ModelFile = Callable[[str], Path]


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def write(path: Path, **changes: object) -> Path:
    contents = {"system": "coco-gan", "config": {}, "details": {}} | changes
    write_checkpoint(path, {"generator.weight": torch.zeros(2)}, **contents)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("kind", ["plane", "cylinder", "torus", "guided"])
def test_a_checkpoint_opens_by_its_path(model_file: ModelFile, kind: str) -> None:
    for path in (model_file(kind), str(model_file(kind))):
        loaded = zellige.load(path, device="cpu", precision="fp32")
        assert isinstance(loaded, CocoGan)
        assert (loaded.name, loaded.precision, loaded.device.type) == (kind, "fp32", "cpu")


def test_weights_are_those_of_the_file(model_file: ModelFile) -> None:
    from safetensors.torch import load_file

    weights = load_file(model_file("guided"))
    state = load(model_file("guided"), device="cpu", precision="fp32", rewrite=False).generator.state_dict()
    names = {name for name in weights if name.startswith("generator.")}
    assert names and all((state[name.removeprefix("generator.")] == weights[name]).all() for name in names)


def test_bf16_casts_the_convolutions_alone(model_file: ModelFile) -> None:
    generator = load(model_file("plane"), device="cpu", precision="bf16").generator
    assert generator.to_image.weight.dtype is torch.bfloat16
    assert generator.stem.weight.dtype is torch.float32


@pytest.mark.parametrize("name", ["nonsense", "", ".", "..", "planet ", "PLANET"])
def test_an_unknown_name_is_refused_with_those_that_are_known(name: str) -> None:
    with pytest.raises(UnknownModelError, match=r"there is no model .*; bundled models: .*; or give the path"):
        load(name)


@pytest.mark.parametrize("name", ["planet.safetensors", "./planet", "runs/planet", "/nowhere/at.all"])
def test_a_separator_or_a_suffix_makes_it_a_path(name: str) -> None:
    assert find(name) == Path(name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone.safetensors does not exist"):
        load(tmp_path / "gone.safetensors")


@pytest.mark.parametrize("share", [0, 4, 8, 100, 0.5, -1])
def test_a_truncated_file_is_refused(model_file: ModelFile, tmp_path: Path, share: float) -> None:
    content = model_file("plane").read_bytes()
    keep = int(len(content) * share) if 0 < share < 1 else int(share)
    (tmp_path / "cut.safetensors").write_bytes(content[:keep])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors"):
        load(tmp_path / "cut.safetensors")


@pytest.mark.parametrize("name", ["evil.pt", "evil.ckpt", "evil.safetensors"])
def test_a_hostile_pickle_does_not_run(tmp_path: Path, name: str) -> None:
    hit = tmp_path / "hit"
    (tmp_path / name).write_bytes(pickle.dumps(Touch(hit)))
    with pytest.raises(CheckpointError):
        load(tmp_path / name)
    assert not hit.exists()
    pickle.loads((tmp_path / name).read_bytes())
    assert hit.exists(), "the payload works where it is let"


def test_the_state_of_a_training_run_is_no_model(tmp_path: Path) -> None:
    path = write(tmp_path / "state.safetensors", details={"progress": {"step": 3}})
    with pytest.raises(UnknownModelError, match=r"the state of a training run, not a model; load model.safetensors"):
        load(path)


def test_a_system_that_cannot_run_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "other.safetensors", system="sculptor")
    sentence = f"holds a sculptor model, which this version cannot run; it runs {', '.join(SYSTEMS)}$"
    with pytest.raises(UnknownModelError, match=sentence):
        load(path)


@pytest.mark.parametrize(
    "config", [{"rows": 0}, {"patch": 7}, {"unknown": 1}, {"rows": "many"}, {"rows": 2, "span": 2}, {"width": 10**9}]
)
def test_an_impossible_configuration_is_refused(tmp_path: Path, config: dict[str, object]) -> None:
    with pytest.raises(CheckpointError, match=r"odd\.safetensors: config"):
        load(write(tmp_path / "odd.safetensors", config=config))


def test_a_configuration_without_its_tensors_is_refused(tmp_path: Path) -> None:
    small = {"patch": 8, "width": 1, "critic_width": 1, "latent": 1}
    path = tmp_path / "hollow.safetensors"
    with pytest.raises(AllocationError, match=r"its config describes \d+ weights and the file holds 2;"):
        load(write(path, config=small))
    write_checkpoint(path, {"generator.weight": torch.zeros(10**5)}, system="coco-gan", config=small)
    with pytest.raises(CheckpointError, match=r"the tensor 'generator.* is missing"):
        load(path)


@pytest.mark.parametrize(("device", "precision"), [("tpu", "fp32"), ("cpu", "fp64"), ("cpu", "fp16")])
def test_devices_and_precisions_that_do_not_exist(model_file: ModelFile, device: str, precision: str) -> None:
    with pytest.raises(DeviceError):
        load(model_file("plane"), device=device, precision=precision)


def test_a_folder_is_listed_beside_the_bundled_models(
    model_file: ModelFile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for kind in ("torus", "guided"):
        shutil.copy(model_file(kind), tmp_path)
    write(tmp_path / "state.safetensors", details={"progress": {}})
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    (tmp_path / "notes.txt").write_text("no model")
    with caplog.at_level(logging.WARNING):
        rows = list_models(tmp_path)
    bundled = [path.stem for path in sorted(BUNDLED.glob("*.safetensors"))]
    assert [row["name"] for row in rows] == [*bundled, "guided", "torus"]
    assert "broken.safetensors" in caplog.text and "state" not in caplog.text
    json.dumps(rows)


def test_a_checkpoint_whose_names_were_wrapped_is_not_listed(
    model_file: ModelFile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    header = read_header(model_file("plane"))
    wrapped = {f"module.{name}": tensor for name, tensor in read_tensors(header).items()}
    write_checkpoint(tmp_path / "wrapped.safetensors", wrapped, system=header.system, config=header.config)
    with caplog.at_level(logging.WARNING):
        rows = list_models(tmp_path)
    assert "wrapped" not in [row["name"] for row in rows]
    assert "a wrapper, such as DataParallel with 'module.'" in caplog.text


def test_a_row_describes_the_model(model_file: ModelFile) -> None:
    row = next(row for row in list_models(model_file("torus").parent) if row["name"] == "torus")
    generator = load(model_file("torus"), device="cpu", rewrite=False).generator
    assert row == {
        "name": "torus",
        "system": "coco-gan",
        "resolution": "12x8",
        "parameters": sum(weight.numel() for weight in generator.parameters()),
        "bytes": model_file("torus").stat().st_size,
        "licence": "CC0",
        "description": "random",
        "path": str(model_file("torus")),
    }


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ZelligeError, match="gone is not a folder"):
        list_models(tmp_path / "gone")
