"""Files of other programs become tensors and plain values; nothing that they carry is run, and faults are sentences."""

import argparse
import fractions
import io
import pickle
import zipfile
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from zellige.engine.checkpoint import faults
from zellige.engine.checkpoint.foreign import content
from zellige.engine.checkpoint.foreign.content import Value, flattened
from zellige.engine.checkpoint.foreign.reading import read_content

from .written import example, nvidia_pickle, tensorflow_pickle, zoo_config

Read = tuple[str, dict[str, Tensor], dict[str, Value]]


def read(raw: bytes) -> Read:
    return read_content(io.BytesIO(raw), len(raw))


def saved(tree: Any, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(tree, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def refused(raw: bytes, fault: type[Exception], part: str) -> None:
    with pytest.raises(fault) as caught:
        read(raw)
    said = str(caught.value)
    assert part in said and "\n" not in said and len(said) < 400


TREE = {"g_ema": {"a.weight": example(2, 3)}, "steps": 7, "names": ["x", None], "rate": 0.5}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older"])
class TestTorchFiles:
    def test_tensors_and_values_have_joined_names(self, zipped: bool) -> None:
        container, tensors, values = read(saved(TREE, zipped))
        assert container == "torch file" and list(tensors) == ["g_ema.a.weight"]
        assert torch.equal(tensors["g_ema.a.weight"], example(2, 3))
        assert values == {"steps": 7, "names.0": "x", "names.1": None, "rate": 0.5}

    def test_options_of_a_command_are_values(self, zipped: bool) -> None:
        _, _, values = read(saved({"args": argparse.Namespace(size=256, path="x")}, zipped))
        assert values == {"args.size": 256, "args.path": "x"}

    def test_a_configuration_of_the_zoo_is_values(self, zipped: bool) -> None:
        with zoo_config() as config:
            raw = saved({"config": config, "avgG": OrderedDict(x=example(2))}, zipped)
        _, tensors, values = read(raw)
        assert list(tensors) == ["avgG.x"] and values == {"config.alpha": 0.25, "config.name": "celeba"}

    def test_the_state_of_optimisers_is_left_out(self, zipped: bool) -> None:
        optimiser = {"state": {0: {"exp_avg": example(2)}}, "param_groups": [{"lr": 0.1}]}
        _, tensors, _ = read(saved({"g": {"weight": example(2)}, "g_optim": optimiser}, zipped))
        assert list(tensors) == ["g.weight"]

    def test_another_class_is_refused_by_name(self, zipped: bool) -> None:
        refused(saved({"x": fractions.Fraction(1, 2)}, zipped), faults.ForbiddenNameError, "'fractions.Fraction'")

    def test_a_file_cut_short_is_said_to_be(self, zipped: bool) -> None:
        raw = saved({"x": torch.zeros(4000)}, zipped)
        kinds = faults.TruncatedFileError, faults.ForeignContentError
        for share in (0.3, 0.6, 0.99):
            with pytest.raises(kinds, match="download it again"):
                read(raw[: int(len(raw) * share)])


class TestPickles:
    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    def test_modules_of_nvidia_are_read_without_their_source(self, protocol: int) -> None:
        state = {
            "mapping.fc0.weight": example(2, 3),
            "mapping.w_avg": example(3),
            "synthesis.b4.const": example(2, 4, 4),
        }
        values = {"synthesis.b4.architecture": "skip", "synthesis.b4.conv_clamp": 256, "z_dim": 512}
        container, tensors, found = read(nvidia_pickle({"G_ema": state}, values, protocol))
        assert container == "pickle" and tensors.keys() == {f"G_ema.{key}" for key in state}
        assert all(torch.equal(tensors[f"G_ema.{key}"], state[key]) for key in state)
        assert {key: found[f"G_ema.{key}"] for key in values} == values
        assert found["G_ema.class_name"] == "Generator" and found["G_ema.mapping.weight_gain"] == 0.5
        assert not any("module_src" in key for key in found)

    @pytest.mark.parametrize("protocol", [2, 3, 4])
    def test_networks_of_tensorflow_are_read_without_their_source(self, protocol: int) -> None:
        state = {
            "dlatent_avg": example(3),
            "mapping/Dense0/weight": example(2, 3),
            "synthesis/noise0": example(1, 1, 4, 4),
        }
        _, tensors, values = read(tensorflow_pickle({"lod": example()}, {"x": example(2)}, state, protocol=protocol))
        assert tensors.keys() == {"G.lod", "D.x", *(f"Gs.{key}" for key in state)}
        assert all(torch.equal(tensors[f"Gs.{key}"], tensor) for key, tensor in state.items())
        assert values["Gs.static_kwargs.resolution"] == 16 and not any("src" in key for key in values)

    def test_arrays_keep_their_order_and_type(self) -> None:
        arrays = {
            "rows": np.arange(6, dtype="f4").reshape(2, 3),
            "columns": np.asfortranarray(np.arange(6, dtype="f8").reshape(2, 3)),
            "swapped": np.arange(6, dtype=">f4"),
            "whole": np.arange(3, dtype="i8"),
        }
        _, tensors, _ = read(pickle.dumps(arrays, 2))
        for name, array in arrays.items():
            assert np.array_equal(tensors[name].numpy(), array)

    @pytest.mark.parametrize("protocol", [2, 4])
    def test_a_name_that_is_not_listed_is_refused_before_it_is_imported(self, protocol: int) -> None:
        refused(pickle.dumps(fractions.Fraction(1, 2), protocol), faults.ForbiddenNameError, "'fractions.Fraction'")
        refused(b"\x80\x02cno_such_module\nname\n.", faults.ForbiddenNameError, "'no_such_module.name'")

    def test_stand_ins_cannot_be_altered(self) -> None:
        for target in ("collections\nOrderedDict", "torch._utils\n_rebuild_tensor_v2", "numpy\ndtype"):
            raw = b"\x80\x02c" + target.encode() + b"\nN}(X\x04\x00\x00\x00nameK\x01u\x86b."
            refused(raw, faults.ForeignContentError, "it is damaged or holds more than weights")

    def test_an_attribute_of_a_listed_name_is_not_listed(self) -> None:
        refused(b"\x80\x04\x8c\x0bcollections\x8c\x13OrderedDict.__len__\x93.", faults.ForbiddenNameError, "__len__")

    def test_arrays_of_objects_are_refused(self) -> None:
        refused(pickle.dumps(np.array([{}], object), 2), faults.ForeignContentError, "dtype 'O8'")

    def test_a_tensor_beyond_its_numbers_is_refused(self) -> None:
        raw = pickle.dumps({"x": example(4)}, 2)
        at = raw.index(b"K\x04\x85")
        refused(raw[:at] + b"K\x09\x85" + raw[at + 3 :], faults.ForeignContentError, "not within its numbers")

    def test_a_pickle_cut_short_is_said_to_be(self) -> None:
        raw = nvidia_pickle({"G_ema": {"x": example(100)}}, {})
        for share in (0.2, 0.5, 0.9):
            with pytest.raises((faults.TruncatedFileError, faults.ForeignContentError), match="download it again"):
                read(raw[: int(len(raw) * share)])


class TestBounds:
    def test_depth(self) -> None:
        tree: Any = 1
        for _ in range(100):
            tree = [tree]
        refused(pickle.dumps(tree), faults.ReadingLimitError, "nested deeper than 64 levels")
        with pytest.raises(faults.ReadingLimitError):
            flattened(tree)

    def test_a_list_that_holds_itself(self) -> None:
        tree: list[Any] = []
        tree.append(tree)
        refused(pickle.dumps(tree), faults.ReadingLimitError, "nested deeper")

    def test_a_list_that_is_repeated_without_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(content, "_MAX_NODES", 1000)  # counting to a million takes seconds
        tree: Any = 0
        for _ in range(12):
            tree = [tree] * 10
        refused(pickle.dumps(tree), faults.ReadingLimitError, "more than 1000 entries")

    def test_few_numbers_as_a_large_tensor(self) -> None:
        refused(saved({"x": torch.zeros(1).expand(1 << 40)}), faults.ReadingLimitError, "repeats a few numbers")

    def test_a_mean_that_is_repeated_for_every_layer_is_read(self) -> None:
        mean = torch.arange(7.0).expand(18, 7)
        assert torch.equal(read(saved({"latent_avg": mean}))[1]["latent_avg"], mean)

    def test_an_archive_that_unpacks_to_more_than_it_has(self) -> None:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x/data.pkl", bytes(1 << 20))
        refused(file.getvalue(), faults.ReadingLimitError, "packed")


OTHERS = {
    "nothing": (b"", faults.OtherFormatError, "it is empty"),
    "text": (b"weights", faults.OtherFormatError, "of no format that weights come in"),
    "a web page": (b"<!DOCTYPE html>", faults.OtherFormatError, "a web page in place of the file"),
    "an archive": (b"PK\x03\x04" + bytes(9), faults.TruncatedFileError, "its end is missing or damaged"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_are_named(name: str) -> None:
    refused(*OTHERS[name])


def test_archives_of_others_are_named() -> None:
    for inner, fault, part in (
        ("x.txt", faults.OtherFormatError, "that torch did not write"),
        ("x/constants.pkl", faults.ForeignContentError, "a TorchScript program"),
    ):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(inner, b"")
        refused(file.getvalue(), fault, part)


def test_safetensors_are_read() -> None:
    container, tensors, _ = read(safetensors.torch.save({"x": example(2, 2)}))
    assert container == "safetensors" and torch.equal(tensors["x"], example(2, 2))


def test_two_tensors_of_one_name_are_refused() -> None:
    refused(
        saved({"a.b": example(1), "a": {"b": example(1)}}), faults.ForeignContentError, "two tensors of the name 'a.b'"
    )


def test_what_no_checkpoint_holds_is_a_value() -> None:
    _, tensors, values = read(saved({"z": torch.zeros(2, dtype=torch.complex64)}))
    assert not tensors and values == {"z": "a tensor of torch.complex64 and torch.strided"}
