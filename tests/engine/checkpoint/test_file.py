import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from pydantic import BaseModel, Field
from torch import Tensor

from zellige.engine.checkpoint.file import (
    check_allocation,
    faults,
    read_header,
    read_tensors,
    validated,
    write_checkpoint,
)
from zellige.errors import CheckpointError, ConfigError, OutputError

CONFIG = {"channels": [8, 16], "latent": 64}


def weights() -> dict[str, Tensor]:
    return {
        "generator.weight": torch.arange(12.0).reshape(3, 4),
        "generator.bias": torch.ones(3, dtype=torch.float16),
        "generator.count": torch.tensor(7),
        "critic.weight": torch.zeros(2, 0),
    }


SHAPES = {"weight": (3, 4), "bias": (3,), "count": ()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "planet.safetensors"
    write_checkpoint(path, weights(), system="coco-gan", config=CONFIG, details={"licence": "CC0-1.0"})
    return path


def test_what_was_written_is_read(path: Path) -> None:
    header = read_header(str(path))
    assert (header.path, header.system, header.config) == (path, "coco-gan", CONFIG)
    assert header.details == {"licence": "CC0-1.0"}
    tensors = read_tensors(header)
    assert tensors.keys() == weights().keys()
    for name, tensor in weights().items():
        torch.testing.assert_close(tensors[name], tensor, rtol=0, atol=0)


def test_a_prefix_selects_and_is_cut_off(path: Path) -> None:
    tensors = read_tensors(read_header(path), SHAPES, prefix="generator.", integers={"count"})
    assert tensors.keys() == SHAPES.keys()


@pytest.mark.parametrize(
    ("fault", "expected", "integers", "key"),
    [
        (faults.MissingTensorError, SHAPES | {"gain": (1,)}, {"count"}, "generator.gain"),
        (faults.UnexpectedTensorError, {"weight": (3, 4), "count": ()}, {"count"}, "generator.bias"),
        (faults.TensorShapeError, SHAPES | {"weight": (4, 3)}, {"count"}, "generator.weight"),
        (faults.TensorShapeError, SHAPES | {"weight": (2**21, 2**21)}, {"count"}, "generator.weight"),
        (faults.TensorDtypeError, SHAPES, set(), "generator.count"),
        (faults.TensorDtypeError, SHAPES, {"count", "bias"}, "generator.bias"),
    ],
)
def test_tensors_other_than_expected_are_refused(
    path: Path, fault: type[CheckpointError], expected: dict[str, tuple[int, ...]], integers: set[str], key: str
) -> None:
    with pytest.raises(fault, match=key):
        read_tensors(read_header(path), expected, "generator.", integers)


def test_a_model_larger_than_the_file_is_refused(path: Path) -> None:
    check_allocation(read_header(path), 16)
    with pytest.raises(faults.AllocationError, match=r"planet.*1099511627776 weights.*holds 16"):
        check_allocation(read_header(path), 2**40)


def test_a_file_replaced_after_its_header_was_read_is_refused(path: Path) -> None:
    header = read_header(path)
    write_checkpoint(path, {"other": torch.ones(1)}, system="onegan", config={})
    with pytest.raises(faults.ChangedFileError, match="changed"):
        read_tensors(header)
    path.unlink()
    with pytest.raises(faults.ChangedFileError, match="changed"):
        read_tensors(header)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="this system does not list its memory maps")
def test_tensors_are_mapped_and_private(path: Path) -> None:
    content = path.read_bytes()
    tensors = read_tensors(read_header(path))
    assert str(path) in Path("/proc/self/maps").read_text()
    tensors["generator.weight"].zero_()
    assert path.read_bytes() == content


class Generator(BaseModel):
    channels: list[int]
    latent: int = Field(gt=0, le=4096)


class Lattice(BaseModel):
    def model_post_init(self, context: Any) -> None:
        raise ConfigError("A lattice of one patch has no coordinates.")


@pytest.mark.parametrize(
    ("config", "clue"),
    [
        ({"channels": [8]}, "'latent': Field required"),
        ({"channels": [8], "latent": -3}, "'latent' is -3"),
        ({"channels": [8, "x" * 999], "latent": 3}, "'channels.1' is 'xxx"),
    ],
)
def test_a_refused_config_names_the_file_and_the_key(path: Path, config: dict[str, Any], clue: str) -> None:
    write_checkpoint(path, {}, system="coco-gan", config=config)
    with pytest.raises(faults.InvalidConfigError) as caught:
        validated(read_header(path), Generator)
    assert str(path) in str(caught.value) and clue in str(caught.value) and len(str(caught.value)) < 600


def test_a_valid_config_becomes_its_model(path: Path) -> None:
    assert validated(read_header(path), Generator) == Generator(channels=[8, 16], latent=64)


def test_a_config_error_of_the_model_names_the_file(path: Path) -> None:
    with pytest.raises(faults.InvalidConfigError, match=r"planet.safetensors.*no coordinates"):
        validated(read_header(path), Lattice)


def test_writing_is_deterministic(path: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.safetensors"
    config = dict(reversed(CONFIG.items()))
    tensors = dict(reversed(weights().items()))
    write_checkpoint(again, tensors, system="coco-gan", config=config, details={"licence": "CC0-1.0"})
    assert again.read_bytes() == path.read_bytes()


def test_strided_and_tied_tensors_are_written(path: Path) -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    write_checkpoint(path, {"a": weight.t(), "b": weight.t(), "c": weight[:, 1]}, system="onegan", config={})
    tensors = read_tensors(read_header(path))
    assert torch.equal(tensors["a"], weight.t()) and torch.equal(tensors["c"], weight[:, 1])


@pytest.mark.parametrize(
    ("fault", "tensors", "system", "config"),
    [
        (faults.InvalidConfigError, {}, "onegan", {"rate": float("nan")}),
        (faults.InvalidConfigError, {}, "onegan", {"folder": Path()}),
        (faults.NumberRangeError, {}, "onegan", {"seed": 2**64}),
        (faults.UnknownSystemError, {}, "dcgan", {}),
        (faults.UnknownDtypeError, {"w": torch.zeros(1, dtype=torch.complex128)}, "onegan", {}),
        (faults.DuplicateKeyError, {"__metadata__": torch.zeros(1)}, "onegan", {}),
        (faults.HeaderLengthError, {}, "onegan", {"note": "x" * 2**24}),
    ],
)
def test_what_could_not_be_read_is_not_written(
    path: Path, fault: type[CheckpointError], tensors: dict[str, Tensor], system: str, config: dict[str, Any]
) -> None:
    content = path.read_bytes()
    with pytest.raises(fault, match="planet"):
        write_checkpoint(path, tensors, system=system, config=config)
    assert path.read_bytes() == content and os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("name", ["none/a.safetensors", "planet.safetensors/a.safetensors", "a.pt", "a.safetensors"])
def test_a_file_that_cannot_be_written_leaves_nothing_behind(path: Path, name: str) -> None:
    (path.parent / "a.safetensors").mkdir()
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(OutputError, match=Path(name).name):
        write_checkpoint(path.parent / name, weights(), system="onegan", config={})
    assert sorted(path.parent.rglob("*")) == before


def test_any_safetensors_reader_opens_a_checkpoint(path: Path) -> None:
    assert safetensors.torch.load_file(path).keys() == weights().keys()
