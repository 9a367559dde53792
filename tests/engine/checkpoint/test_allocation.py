"""A small file whose configuration asks for terabytes is refused before anything is allocated."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

import zellige
from zellige.engine.checkpoint.faults import AllocationError
from zellige.engine.checkpoint.file import write_checkpoint

VAST = {"rows": 4096, "columns": 4096, "padding": "none", "dense": True}


@pytest.fixture
def little_memory() -> Iterator[None]:
    """No more than 512 MiB beyond what this process has by now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 512 * 2**20, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system does not say how large a process is")
@pytest.mark.usefixtures("little_memory")
def test_a_checkpoint_that_asks_for_terabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vast.safetensors"
    write_checkpoint(path, {}, system="coco-gan", config=VAST)
    assert path.stat().st_size < 1000
    with pytest.raises(
        AllocationError, match=r"vast.safetensors: its config describes \d+ weights and the file holds 0"
    ):
        zellige.load(path, device="cpu")
