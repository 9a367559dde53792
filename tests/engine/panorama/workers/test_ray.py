"""Pictures by a Ray cluster of three nodes: the bytes of one process, also when a node is killed half-way."""

import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zellige.engine.panorama import journal as journals
from zellige.engine.panorama.canvas import is_unfinished
from zellige.engine.panorama.journal import Journal
from zellige.engine.panorama.render import render_file
from zellige.engine.panorama.scene import Scene
from zellige.engine.panorama.workers import Failure, Job, ray_cluster
from zellige.engine.panorama.workers.band import MARKER, Band, Order, Report, versions, work
from zellige.engine.panorama.workers.ray import Nodes
from zellige.engine.systems.coco_gan.model import CocoGan
from zellige.errors import OutputError, TaskError, ValuesError, WorkerError

ray = pytest.importorskip("ray")
pytest.importorskip("zarr")
Model = Callable[..., CocoGan]
BUDGET = 2**28
SIZE = 2568, 1024  # twelve shards in two rows; nodes make the three of the first smaller level too
QUICK = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 300, "health_check_failure_threshold": 3}
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args=NODE | {"_system_config": QUICK})
    try:
        for _ in range(2):
            started.add_node(**NODE)
        yield started
    finally:
        ray.shutdown()
        started.shutdown()


@pytest.fixture(scope="module")
def alone(model_file: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the picture by one process."""
    from zellige.engine.library import load

    path = tmp_path_factory.mktemp("alone") / "a.zarr"
    rendered(load(model_file("dense torus"), device="cpu", precision="fp32"), path)
    return contents(path)


def rendered(loaded: CocoGan, path: Path, address: str | None = None, **settings: Any) -> dict[str, Any]:
    scene = loaded.scene(*SIZE, 3)
    asked: dict[str, Any] = {"budget": BUDGET, "name": "tiny"} | settings
    if address is None:
        return render_file(loaded.patches, scene, path, **asked)
    with Nodes(address) as nodes:
        return render_file(loaded.patches, scene, path, nodes=nodes, **asked)


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def kill(node: Any) -> None:
    """End a node as a loss of power does: its raylet, and all processes that this has started."""
    raylet = node.all_processes["raylet"][0].process.pid
    threads = Path(f"/proc/{raylet}/task").glob("*/children")
    children = [int(child) for thread in threads for child in thread.read_text().split()]
    for process in (raylet, *children):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def test_a_killed_nodes_bands_are_done_again_to_the_bytes_of_one_process(
    model: Model, cluster: Any, alone: dict[str, bytes], tmp_path: Path,
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(ray_cluster, "_PAUSE", 0.3)  # this cluster notices quickly
    told, victims = list[tuple[int, int]](), [cluster.worker_nodes.copy().pop()]

    def advance(done: int, total: int) -> None:
        told.append((done, total))
        if 2 * done >= total and victims:
            kill(victims.pop())

    with caplog.at_level(logging.WARNING):
        report = rendered(model("dense torus"), tmp_path / "a.zarr", cluster.address, advance=advance)
    assert contents(tmp_path / "a.zarr") == alone
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]
    assert report["bands_retried"] > 0 and "are done again" in caplog.text
    assert len(report["nodes"]) == 3 and sum(node["bands"] for node in report["nodes"]) == report["bands"]
    assert (report["threads"], told[-1]) == (1, (SIZE[0] * SIZE[1],) * 2)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
