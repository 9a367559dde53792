import json
import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from pydantic import BaseModel, Field, model_validator
from torch import Tensor, nn

from zellige.engine.checkpoint.file import (
    FORMAT_VERSION,
    check_allocation,
    faults,
    read_header,
    read_tensors,
    validated,
    write_checkpoint,
)
from zellige.errors import CheckpointError, ConfigError, OutputError

CPU = torch.device("cpu")
CONFIG = {"channels": [8, 16], "latent": 64}


def weights() -> dict[str, Tensor]:
    return {
        "generator.weight": torch.arange(12.0).reshape(3, 4),
        "generator.bias": torch.ones(3, dtype=torch.float16),
        "critic.weight": torch.zeros(2, 0),
    }


SHAPES = {"weight": (3, 4), "bias": (3,)}


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
    tensors = read_tensors(read_header(path), SHAPES, prefix="generator.")
    assert tensors.keys() == SHAPES.keys()


@pytest.mark.parametrize(
    ("fault", "expected", "key"),
    [
        (faults.MissingTensorError, SHAPES | {"gain": (1,)}, "generator.gain"),
        (faults.UnexpectedTensorError, {"weight": (3, 4)}, "generator.bias"),
        (faults.TensorShapeError, SHAPES | {"weight": (4, 3)}, "generator.weight"),
        (faults.TensorShapeError, SHAPES | {"weight": (2**21, 2**21)}, "generator.weight"),
    ],
)
def test_tensors_other_than_expected_are_refused(
    path: Path, fault: type[CheckpointError], expected: dict[str, tuple[int, ...]], key: str
) -> None:
    with pytest.raises(fault, match=key):
        read_tensors(read_header(path), expected, "generator.")


def test_weights_that_are_integers_are_refused(path: Path) -> None:
    write_checkpoint(path, {"generator.count": torch.tensor(7)}, system="coco-gan", config={})
    with pytest.raises(faults.TensorDtypeError, match="generator.count"):
        read_tensors(read_header(path), {"count": ()}, "generator.")


@pytest.mark.parametrize(
    ("given", "surplus"),
    [
        ("module.generator.", "module."), ("generator.module.", "module."), ("generator._orig_mod.", "_orig_mod."),
        ("net.ema.generator.", "net.ema."),
    ],
)  # fmt: skip
def test_a_wrappers_prefix_is_recognised_and_the_way_out_works(path: Path, given: str, surplus: str) -> None:
    tensors = {given + name: torch.ones(shape) for name, shape in SHAPES.items()}
    write_checkpoint(path, tensors, system="coco-gan", config={})
    with pytest.raises(faults.PrefixedNamesError, match=rf"is named '{given}weight'.*replace\('{surplus}', '', 1\)"):
        read_tensors(read_header(path), SHAPES, "generator.")
    renamed = {name.replace(surplus, "", 1): tensor for name, tensor in safetensors.torch.load_file(path).items()}
    write_checkpoint(path, renamed, system="coco-gan", config={})
    assert read_tensors(read_header(path), SHAPES, "generator.").keys() == SHAPES.keys()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_weights_that_are_not_finite_are_refused_by_name(path: Path, value: float, dtype: torch.dtype) -> None:
    content, broken = path.read_bytes(), {"generator.bias": torch.tensor([1, value, 2], dtype=dtype)}
    with pytest.raises(faults.NotFiniteError, match=r"'generator.bias' holds NaN or infinity in 1 of its 3 numbers"):
        write_checkpoint(path, broken, system="coco-gan", config={})
    assert path.read_bytes() == content
    document = {"format_version": FORMAT_VERSION, "system": "coco-gan", "config": {}, "details": {}}
    safetensors.torch.save_file(broken, path, {"zellige": json.dumps(document)})
    with pytest.raises(faults.NotFiniteError, match=r"'generator.bias' holds NaN or infinity in 1 of its 3 numbers"):
        read_tensors(read_header(path))


class TestAllocation:
    def test_a_model_larger_than_the_file_is_refused(self, path: Path) -> None:
        held = read_header(path).elements
        check_allocation(path, network(held), held, CPU)
        with pytest.raises(faults.AllocationError, match=r"planet.*1099511627776 weights.*holds 15"):
            check_allocation(path, network(2**40), held, CPU)

    def test_constants_larger_than_the_memory_are_refused(self, path: Path) -> None:
        with pytest.raises(
            faults.AllocationError, match=r"describes a network of 4194305MiB, and cpu has \d+MiB of free"
        ):
            check_allocation(path, network(15, constants=2**40), 15, CPU)


def network(weights: int, constants: int = 1) -> nn.Module:
    """A network of so many weights and constants, which no file holds."""
    with torch.device("meta"):
        made = nn.Module()
        made.weight = nn.Parameter(torch.empty(weights))
        made.register_buffer("noise", torch.empty(constants), persistent=False)
    return made


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


class Ordered(BaseModel):
    small: int = 3
    large: int = 2

    @model_validator(mode="after")
    def _check(self) -> "Ordered":
        raise ValueError("small must be below large")


def test_keys_that_do_not_go_together_are_refused_by_the_model_s_sentence(path: Path) -> None:
    write_checkpoint(path, {}, system="coco-gan", config={})
    with pytest.raises(faults.InvalidConfigError, match=r"safetensors: config: small must be below large; save"):
        validated(read_header(path), Ordered)


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
        (faults.MissingSystemError, {}, "", {}),
        (faults.MissingSystemError, {}, "../dcgan", {}),
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


def test_a_link_stays_and_its_target_is_replaced(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link.safetensors").symlink_to(path.name)
    write_checkpoint(tmp_path / "link.safetensors", {}, system="onegan", config={})
    assert (tmp_path / "link.safetensors").is_symlink() and read_header(path).system == "onegan"


def test_any_safetensors_reader_opens_a_checkpoint(path: Path) -> None:
    assert safetensors.torch.load_file(path).keys() == weights().keys()
