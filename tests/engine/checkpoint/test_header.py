import json
import os
import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch

from zellige.engine.checkpoint import faults
from zellige.engine.checkpoint.file import FORMAT_VERSION, read_header
from zellige.errors import CheckpointError

CONFIG = {"channels": [8, 16], "latent": 64}
DOCUMENT = {"format_version": FORMAT_VERSION, "system": "coco-gan", "config": CONFIG, "details": {}}
PAIR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def file_of(header: str | bytes, data: bytes = b"") -> bytes:
    header = header.encode() if isinstance(header, str) else header
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data


def with_tensors(tensors: dict[str, Any], data: bytes = bytes(8)) -> bytes:
    return file_of(json.dumps({"__metadata__": {"zellige": json.dumps(DOCUMENT)}, **tensors}), data)


def with_document(document: Any) -> bytes:
    text = document if isinstance(document, str) else json.dumps(document)
    return file_of(json.dumps({"__metadata__": {"zellige": text}}))


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in DOCUMENT.items() if name != key}


def deep(levels: int) -> str:
    return json.dumps(DOCUMENT).replace("64", "[" * levels + "]" * levels)


FILES = {
    "empty": (faults.EmptyFileError, b"", "empty"),
    "ends in the length": (faults.TruncatedFileError, b"\x40\x00\x00", "3 bytes"),
    "length beyond the file": (faults.TruncatedFileError, struct.pack("<Q", 900) + b"{}", "900"),
    "length beyond 16 MiB": (faults.HeaderLengthError, struct.pack("<Q", 2**24 + 1) + b"{}", "16777217"),
    "length with the sign bit": (faults.HeaderLengthError, b"\xff" * 8 + b"{}", "18446744073709551615"),
    "length zero": (faults.HeaderLengthError, bytes(9), "0 bytes"),
    "zip": (faults.PickleRefusedError, b"PK\x03\x04" + bytes(40), "zellige convert FILE"),
    **{
        f"pickle protocol {n}": (faults.PickleRefusedError, pickle.dumps(list(range(9)), n), "can run code")
        for n in (2, 3, 4, 5)
    },
}
FORMATS = {
    "TensorRT-RTX": (faults.EngineFileError, b"vtrt" + bytes(60), "a TensorRT engine"),
    "TensorRT": (faults.EngineFileError, b"ptrt" + bytes(60), "a TensorRT engine"),
    "Git LFS": (
        faults.PointerFileError, b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 6304124\n",
        "git lfs pull",
    ),
    "HTML": (faults.WebPageError, b"<!DOCTYPE html>\n<html>", "/resolve/"),
    "HTML with a mark": (faults.WebPageError, b"\xef\xbb\xbf\n <HTML lang=en>", "/resolve/"),
    "JSON": (faults.OtherFormatError, b'{"metadata": {}, "weight_map": {}}', "JSON text"),
    "an error as JSON": (faults.OtherFormatError, b'{"error":"Repository not found"}', "JSON text"),
    "ONNX": (faults.OtherFormatError, b"\x08\x0a\x12\x07zellige\x3a\x00", "ends in .onnx"),
    "HDF5": (faults.OtherFormatError, b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5"),
    "GGUF": (faults.OtherFormatError, b"GGUF\x03" + bytes(40), "GGUF"),
    "PNG": (faults.PictureFileError, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "PNG picture"),
    "JPEG": (faults.PictureFileError, b"\xff\xd8\xff\xe0\0\x10JFIF", "JPEG picture"),
    "gzip": (faults.CompressedFileError, b"\x1f\x8b\x08\x00" + bytes(40), "unpack it"),
    "tar": (faults.CompressedFileError, b"model.safetensors".ljust(257, b"\0") + b"ustar\0", "unpack it"),
}  # fmt: skip
HEADERS = {
    "latin-1": (faults.HeaderEncodingError, file_of(b'{"\xe9": 1}'), "byte 10"),
    "half a surrogate pair": (faults.SurrogateError, with_document('{"\\ud800": 1}'), "surrogate"),
    "not JSON": (faults.JsonSyntaxError, file_of("{nothing}"), "character 1"),
    "config not JSON": (faults.JsonSyntaxError, with_document("{"), "'zellige'"),
    "array": (faults.HeaderStructureError, file_of("[]"), "[]"),
    "metadata not strings": (faults.HeaderStructureError, file_of('{"__metadata__": {"zellige": 1}}'), "__metadata__"),
    "document an array": (faults.HeaderStructureError, with_document([]), "'zellige'"),
    "tensor twice": (faults.DuplicateKeyError, file_of('{"a": 1, "a": 1}'), "'a'"),
    "config key twice": (faults.DuplicateKeyError, with_document('{"b": 1, "b": 1}'), "'b'"),
    "65 levels": (faults.NestingError, with_document(deep(65)), "64 levels"),
    "100,000 levels": (faults.NestingError, with_document(deep(100_000)), "64 levels"),
    "header of 100,000 levels": (faults.NestingError, file_of('{"a":' * 100_000), "64 levels"),
    **{
        f"number {text}": (
            faults.NumberRangeError,
            with_document(json.dumps(DOCUMENT).replace("64", text)),
            text[:20],
        )
        for text in ("NaN", "Infinity", "-Infinity", "1e999", "18446744073709551616", "9" * 5000)
    },
}
DOCUMENTS = {
    "plain safetensors": (faults.ForeignFileError, file_of('{"__metadata__": {"format": "pt"}}'), "no Zellige"),
    "no metadata": (faults.ForeignFileError, file_of("{}"), "'zellige'"),
    "older": (faults.FormatVersionError, with_document(DOCUMENT | {"format_version": 0}), "save the checkpoint again"),
    "newer": (faults.FormatVersionError, with_document(DOCUMENT | {"format_version": 2}), "update zellige"),
    "no version": (faults.FormatVersionError, with_document(without("format_version")), "None"),
    "version true": (faults.FormatVersionError, with_document(DOCUMENT | {"format_version": True}), "True"),
    "no system": (faults.MissingSystemError, with_document(without("system")), "None"),
    "system a path": (faults.MissingSystemError, with_document(DOCUMENT | {"system": "../onegan"}), "'../onegan'"),
    "system a list": (faults.MissingSystemError, with_document(DOCUMENT | {"system": []}), "[]"),
    "no config": (faults.InvalidConfigError, with_document(without("config")), "'config'"),
    "config a list": (faults.InvalidConfigError, with_document(DOCUMENT | {"config": [1]}), "[1]"),
    "details a string": (faults.InvalidConfigError, with_document(DOCUMENT | {"details": "x"}), "'details'"),
}
TENSORS = {
    "entry not an object": (faults.TensorEntryError, {"w": 3}),
    "entry without shape": (faults.TensorEntryError, {"w": {"dtype": "F32", "data_offsets": [0, 8]}}),
    "entry with more": (faults.TensorEntryError, {"w": PAIR | {"code": "x"}}),
    "dtype F4": (faults.UnknownDtypeError, {"w": PAIR | {"dtype": "F4"}}),
    "dtype a list": (faults.UnknownDtypeError, {"w": PAIR | {"dtype": ["F32"]}}),
    "negative size": (faults.InvalidShapeError, {"w": PAIR | {"shape": [-2]}}),
    "fractional size": (faults.InvalidShapeError, {"w": PAIR | {"shape": [2.0]}}),
    "size true": (faults.InvalidShapeError, {"w": PAIR | {"shape": [2, True]}}),
    "shape a number": (faults.InvalidShapeError, {"w": PAIR | {"shape": 2}}),
    "65 dimensions": (faults.InvalidShapeError, {"w": PAIR | {"shape": [2] + [1] * 64}}),
    "product of 2**64": (faults.InvalidShapeError, {"w": PAIR | {"shape": [2**32, 2**32]}}),
    "overflow beside zero": (faults.InvalidShapeError, {"w": PAIR | {"shape": [0, 2**63 - 1, 2]}}),
    "one offset": (faults.TensorOffsetsError, {"w": PAIR | {"data_offsets": [8]}}),
    "negative offset": (faults.TensorOffsetsError, {"w": PAIR | {"data_offsets": [-8, 0]}}),
    "reversed offsets": (faults.TensorOffsetsError, {"w": PAIR | {"data_offsets": [8, 0]}}),
    "too few bytes": (faults.ByteCountError, {"w": PAIR | {"data_offsets": [0, 7]}}),
    "offsets of terabytes": (faults.ByteCountError, {"w": PAIR | {"data_offsets": [0, 2**42]}}),
    "overlap": (faults.TensorOverlapError, {"v": PAIR, "w": PAIR}),
    "hole first": (faults.TensorHoleError, {"w": PAIR | {"data_offsets": [8, 16]}}),
    "unaligned": (
        faults.MisalignedTensorError,
        {"v": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}, "w": PAIR | {"data_offsets": [1, 9]}},
    ),
}


def refusal(path: Path, fault: type[CheckpointError]) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    assert caught.type is fault, caught.value
    sentence = str(caught.value)
    assert str(path) in sentence and sentence.endswith(".") and "\n" not in sentence and len(sentence) < 800
    return sentence


@pytest.mark.parametrize("name", [*FILES, *FORMATS, *HEADERS, *DOCUMENTS])
def test_a_damaged_file_is_refused_by_its_own_fault(tmp_path: Path, name: str) -> None:
    fault, content, clue = (FILES | FORMATS | HEADERS | DOCUMENTS)[name]
    path = tmp_path / "planet.safetensors"
    path.write_bytes(content)
    assert clue in refusal(path, fault)


@pytest.mark.parametrize("name", TENSORS)
def test_a_wrong_tensor_is_refused_by_its_own_fault_and_named(tmp_path: Path, name: str) -> None:
    fault, tensors = TENSORS[name]
    path = tmp_path / "planet.safetensors"
    path.write_bytes(with_tensors(tensors))
    assert "'w'" in refusal(path, fault)


def test_terabytes_announced_are_refused_without_allocating(tmp_path: Path) -> None:
    path = tmp_path / "planet.safetensors"
    path.write_bytes(with_tensors({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}))
    tracemalloc.start()
    refusal(path, faults.TruncatedFileError)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_bytes_after_the_last_tensor_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "planet.safetensors"
    path.write_bytes(with_tensors({"w": PAIR}, bytes(9)))
    assert "last 1 bytes" in refusal(path, faults.TensorHoleError)


@pytest.mark.parametrize("part", range(64))
def test_a_truncated_file_is_refused(tmp_path: Path, part: int) -> None:
    content = with_tensors({"v": PAIR, "w": PAIR | {"data_offsets": [8, 16]}}, bytes(16))
    path = tmp_path / "planet.safetensors"
    path.write_bytes(content[: len(content) * part // 64])
    refusal(path, faults.TruncatedFileError if part else faults.EmptyFileError)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    refusal(tmp_path / "none.safetensors", faults.MissingFileError)
    refusal(tmp_path / "none.pt", faults.MissingFileError)


def test_a_folder_and_a_pipe_are_refused(tmp_path: Path) -> None:
    assert "it is a folder" in refusal(tmp_path, faults.NotAFileError)
    os.mkfifo(tmp_path / "pipe.safetensors")
    assert "it is a pipe" in refusal(tmp_path / "pipe.safetensors", faults.NotAFileError)


def test_any_system_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(with_document(DOCUMENT | {"system": "dcgan"}))
    assert read_header(tmp_path / "a.safetensors").system == "dcgan"


def test_a_pointer_is_recognised_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    refusal(tmp_path / "a.ckpt", faults.PointerFileError)


def test_a_name_that_no_system_takes_is_refused(tmp_path: Path) -> None:
    refusal(tmp_path / "a\0b", faults.UnreadableFileError)
    refusal(tmp_path / ("a" * 300), faults.UnreadableFileError)
    refusal(tmp_path / os.fsdecode(b"\xff.safetensors"), faults.UnreadableFileError)


class Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.pkl", "a.ckpt", "a.PT", "a.safetensors"])
@pytest.mark.parametrize("as_zip", [True, False])
def test_the_payload_of_a_pickle_never_runs(tmp_path: Path, name: str, as_zip: bool) -> None:
    torch.save({"w": Payload(tmp_path / "ran")}, tmp_path / name, _use_new_zipfile_serialization=as_zip)
    refusal(tmp_path / name, faults.PickleRefusedError)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("length", [0x280, 0x380, 0x480, 0x580, 0x10280])
def test_a_header_whose_length_looks_like_a_pickle_opens(tmp_path: Path, length: int) -> None:
    header = json.dumps({"__metadata__": {"zellige": json.dumps(DOCUMENT)}}).ljust(length)
    path = tmp_path / "planet.safetensors"
    path.write_bytes(file_of(header))
    assert read_header(path).config == CONFIG
