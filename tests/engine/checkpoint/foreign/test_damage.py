"""Damaged files of every container end in errors of our own, within the bounds of the process that reads them."""

import io
import pickle
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zellige.engine.checkpoint.foreign.reading import read_content
from zellige.errors import CheckpointError


def saved(tree: Any, **how: Any) -> bytes:
    file = io.BytesIO()
    torch.save(tree, file, **how)
    return file.getvalue()


TREE = {"g": {"w": torch.arange(6.0).reshape(2, 3)}, "n": [1, None, 0.5, "text"]}
FILES = {
    "pickle": pickle.dumps({"w": torch.ones(4), "a": np.ones(4), "n": np.float32(1)}, 4),
    "torch file": saved(TREE),
    "old torch file": saved(TREE, _use_new_zipfile_serialization=False),
}


@pytest.fixture(scope="module", autouse=True)
def bounded() -> Iterator[None]:
    """The bound of the process: a damaged pickle may ask for tens of gigabytes, and touch them."""
    if not sys.platform.startswith("linux"):
        pytest.skip("memory is bounded on Linux alone")
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**29, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_cut_are_refused(name: str) -> None:
    content = FILES[name]
    for end in range(12, len(content) - 1, max(len(content) // 40, 1)):
        with pytest.raises(CheckpointError):
            read_content(io.BytesIO(content[:end]), end)


@given(st.sampled_from(sorted(FILES)), st.data())
def test_changed_files_raise_our_own_errors_alone(name: str, data: st.DataObject) -> None:
    content = FILES[name]
    place = data.draw(st.integers(2, len(content) - 1))
    changed = content[:place] + data.draw(st.binary(min_size=1, max_size=4)) + content[place + 1 :]
    try:
        read_content(io.BytesIO(changed), len(changed))
    except CheckpointError as error:
        assert "\n" not in str(error)
