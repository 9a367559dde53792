"""A process of its own reads a foreign file, within bounds; its faults name the file."""

import hashlib
import os
import pickle
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from zellige.engine.checkpoint import faults
from zellige.engine.checkpoint.foreign.opening import open_foreign

from .written import example, nvidia_pickle


def test_the_content_comes_with_the_file_s_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    path, state = tmp_path / "network.pkl", {"a.weight": example(2, 3), "a.noise_const": example(4, 4)}
    path.write_bytes(nvidia_pickle({"G_ema": state}, {"a.conv_clamp": 256}))
    found = open_foreign(path)
    assert (found.path, found.container) == (path, "pickle")
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.tensors.keys() == {f"G_ema.{key}" for key in state} and found.values["G_ema.a.conv_clamp"] == 256
    assert all(torch.equal(found.tensors[f"G_ema.{key}"], tensor) for key, tensor in state.items())
    assert list(tmp_path.iterdir()) == [path]


SCRIPT = """
import sys
sys.path[:0] = {places!r}
from zellige.engine.checkpoint.foreign.opening import open_foreign
print(list(open_foreign({path!r}).tensors))
"""


def test_the_process_finds_the_package_where_a_script_has_found_it(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({"w": torch.zeros(1)}, path)
    code = SCRIPT.format(places=[place for place in sys.path if place], path=str(path))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (ended.returncode, ended.stdout) == (0, "['w']\n"), ended.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is bounded on Linux alone")
def test_memory_is_bounded_by_the_file_s_size(tmp_path: Path) -> None:
    path, megabyte = tmp_path / "bomb.pkl", 1 << 20
    listed = b"c_codecs\nencode\nq\x00X" + struct.pack("<I", megabyte) + bytes(megabyte) + b"q\x01"
    path.write_bytes(b"\x80\x02" + listed + b"(" + b"h\x00h\x01\x85R" * 4000 + b"t.")  # would take 4 GB
    with pytest.raises(faults.ReadingLimitError, match=r"bomb\.pkl cannot be converted: it asks for more than"):
        open_foreign(path)


def test_time_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "slow.pkl"
    path.write_bytes(pickle.dumps({}))
    with pytest.raises(faults.ReadingLimitError, match=r"slow\.pkl: reading it took more than 0\.01 seconds;"):
        open_foreign(path, seconds=0.01)


def test_paths_that_are_no_files_are_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, fault in ((tmp_path / "gone.pt", faults.MissingFileError), (tmp_path, faults.NotAFileError),
                        (pipe, faults.NotAFileError), (tmp_path / "a\0b", faults.UnreadableFileError)):  # fmt: skip
        with pytest.raises(fault):
            open_foreign(path)
