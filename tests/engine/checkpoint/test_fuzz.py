import json
import os
import random
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from zellige.engine.checkpoint.file import read_header, read_tensors, validated, write_checkpoint
from zellige.errors import CheckpointError


class Generator(BaseModel):
    channels: tuple[int, ...]
    latent: int = Field(gt=0, le=4096)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "planet.safetensors"


@pytest.fixture(scope="module")
def content(path: Path) -> bytes:
    tensors = {"weight": torch.ones(2, 3), "bias": torch.ones(3, dtype=torch.float16), "empty": torch.ones(0, 5)}
    write_checkpoint(path, tensors, system="coco-gan", config={"channels": [8, 16], "latent": 64})
    return path.read_bytes()


def opens_or_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        header = read_header(path)
    except CheckpointError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return
    # Where our parser says yes, safetensors has to agree: no fault is left for it to find.
    tensors = read_tensors(header)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        name: info.shape for name, info in header.tensors.items()
    }
    try:
        validated(header, Generator)
    except CheckpointError as error:
        assert str(path) in str(error)


def file_of(header: bytes, data: bytes) -> bytes:
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data


@settings(max_examples=300)
@given(noise=st.binary(max_size=200))
def test_random_bytes_are_refused(path: Path, noise: bytes) -> None:
    opens_or_is_refused(path, noise)
    opens_or_is_refused(path, file_of(noise, b""))


@settings(max_examples=800)
@given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
def test_changed_bytes_open_or_are_refused(path: Path, content: bytes, changes: list[tuple[int, int]]) -> None:
    mutated = bytearray(content)
    for position, value in changes:
        mutated[position % len(mutated)] = value
    opens_or_is_refused(path, bytes(mutated))


TOKENS = [b"", b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u0000", b"\\ud800", b"-0", b"0", b"-1", b"1.0"]
TOKENS += [b"1e0", b"1e999", b"NaN", b"null", b"true", b"9" * 30, b"\x00", b"\xff", b"\xef\xbb\xbf", b"\n", b'"F64"']


@settings(max_examples=800)
@given(
    edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 6), st.sampled_from(TOKENS)), min_size=1, max_size=3)
)
def test_an_edited_header_opens_or_is_refused(path: Path, content: bytes, edits: list[tuple[int, int, bytes]]) -> None:
    length = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + length].rstrip(), content[8 + length :]
    for position, removed, token in edits:
        position %= len(header) + 1
        header = header[:position] + token + header[position + removed :]
    opens_or_is_refused(path, file_of(header, data))


sizes = st.sampled_from([0, 1, 2, 3, 4, 8, 12, 24, 2**31, 2**62, 2**63, 2**64 - 1, -1, 1.0, True, None, "2"])
tensor_entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F64", "F32", "BF16", "U8", "BOOL", "I64", "F8_E4M3", "C64", "f32", "", 3]),
        "shape": st.lists(sizes, max_size=3),
        "data_offsets": st.lists(sizes, min_size=1, max_size=3),
    }
)
# A span that fits its dtype and shape lets the layout itself be wrong.
fitting_entries = st.tuples(st.sampled_from([("U8", 1), ("F16", 2), ("F32", 4)]), st.integers(0, 3), st.integers(0, 8))


def fitting(entry: tuple[tuple[str, int], int, int]) -> dict[str, Any]:
    (dtype, itemsize), elements, begin = entry
    return {"dtype": dtype, "shape": [elements], "data_offsets": [begin, begin + itemsize * elements]}


@settings(max_examples=800)
@given(
    entries=st.dictionaries(st.text(max_size=2), tensor_entries | fitting_entries.map(fitting), max_size=3),
    data=st.integers(0, 16),
)
def test_any_layout_opens_or_is_refused(path: Path, entries: dict[str, Any], data: int) -> None:
    document = json.dumps({"format_version": 1, "system": "onegan", "config": {}, "details": {}})
    header = json.dumps({"__metadata__": {"zellige": document}, **entries})
    opens_or_is_refused(path, file_of(header.encode(), bytes(data)))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
documents = st.fixed_dictionaries(
    {
        "format_version": st.just(1) | json_values,
        "system": st.just("key-patch") | json_values,
        "config": st.fixed_dictionaries({"channels": json_values, "latent": json_values}) | json_values,
        "details": st.just({}) | json_values,
    }
)


@settings(max_examples=500)
@given(document=documents | json_values)
def test_any_document_opens_or_is_refused(path: Path, document: Any) -> None:
    header = json.dumps({"__metadata__": {"zellige": json.dumps(document)}})
    opens_or_is_refused(path, file_of(header.encode(), b""))


SAVE_FOREVER = """
import itertools, os, sys, torch
from zellige.engine.checkpoint.file import write_checkpoint

for _ in range(5):
    if (child := os.fork()) == 0:
        for step in itertools.count():
            weight = torch.full((2**19,), float(step))
            write_checkpoint(sys.argv[1], {"weight": weight}, system="onegan", config={"step": step})
            if step == 0:
                print(os.getpid(), flush=True)
    os.waitpid(child, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_save_killed_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "planet.safetensors"
    moments = random.Random(0)
    with subprocess.Popen([sys.executable, "-c", SAVE_FOREVER, path], stdout=subprocess.PIPE, text=True) as saver:
        assert saver.stdout is not None
        for child in saver.stdout:
            time.sleep(moments.uniform(0, 0.1))  # not a wait for anything: the moment of the kill is what varies
            os.kill(int(child), signal.SIGKILL)
            header = read_header(path)
            weight = read_tensors(header, {"weight": (2**19,)})["weight"]
            assert (weight == header.config["step"]).all()
    assert saver.returncode == 0
