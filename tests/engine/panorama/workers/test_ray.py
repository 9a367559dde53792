"""Pictures by a Ray cluster of three nodes: the bytes of one process, also when a node is killed half-way."""

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zellige.engine.panorama import journal as journals
from zellige.engine.panorama.canvas import is_unfinished
from zellige.engine.panorama.scene import Region
from zellige.engine.panorama.workers import Chunk, Failure, Job, ray_cluster
from zellige.engine.panorama.workers.band import MARKER, Band, Order, Report, versions, work
from zellige.engine.panorama.workers.ray import Nodes, _bands
from zellige.engine.panorama.workers.ray_cluster import Cluster
from zellige.engine.systems.coco_gan.model import CocoGan
from zellige.errors import MissingExtraError, OutputError, TaskError, ValuesError, WorkerError, ZelligeError

ray = pytest.importorskip("ray")
pytest.importorskip("zarr")
Model = Callable[..., CocoGan]
WIDTH, HEIGHT = 2568, 528  # twelve shards in two rows; nodes make the three of the first smaller level too
ASKED: dict[str, Any] = {"width": WIDTH, "height": HEIGHT, "memory": 2**28, "seed": 3}
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
QUICK = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 300, "health_check_failure_threshold": 3}


class Stop(Exception):
    """Ends a run in the middle."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Three nodes, which this process has joined, so that their processes stay from test to test."""
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args=NODE | {"_system_config": QUICK})
    try:
        for _ in range(2):
            started.add_node(**NODE)
        ray.init(address=started.address, log_to_driver=False, logging_level=logging.ERROR)
        yield started
    finally:
        ray.shutdown()
        started.shutdown()


@pytest.fixture(scope="module")
def loaded(model_file: Callable[[str], Path]) -> CocoGan:
    from zellige.engine.library import load

    model: CocoGan = load(model_file("dense torus"), device="cpu", precision="fp32")
    return model


@pytest.fixture(scope="module")
def alone(loaded: CocoGan, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the picture by one process."""
    path = tmp_path_factory.mktemp("alone") / "a.zarr"
    loaded.panorama(path, **ASKED)
    return contents(path)


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def processes(node: Any) -> list[int]:
    """The raylet of a node, and the processes that it has started."""
    raylet = node.all_processes["raylet"][0].process.pid
    threads = Path(f"/proc/{raylet}/task").glob("*/children")
    return [raylet, *(int(child) for thread in threads for child in thread.read_text().split())]


def is_busy(node: Any) -> bool:
    return any(Path(f"/proc/{process}/cmdline").read_bytes().startswith(b"ray::_work") for process in processes(node))


def stop_at(share: float) -> Callable[[int, int], None]:
    def advance(done: int, total: int) -> None:
        if done >= share * total:
            raise Stop

    return advance


@pytest.mark.slow
def test_a_killed_nodes_bands_are_done_again_to_the_bytes_of_one_process(
    loaded: CocoGan, alone: dict[str, bytes], cluster: Any, tmp_path: Path,
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(ray_cluster, "_PAUSE", 0.3)  # this cluster notices quickly
    told, killed = list[tuple[int, int]](), list[Any]()

    def advance(done: int, total: int) -> None:
        told.append((done, total))
        busy = [node for node in cluster.worker_nodes if is_busy(node)]
        if 2 * done >= total and busy and not killed:
            killed.append(busy[0])
            for process in processes(busy[0]):  # as a loss of power does
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)

    with caplog.at_level(logging.WARNING):
        report = loaded.panorama(tmp_path / "a.zarr", **ASKED, progress=advance, ray=cluster.address)
    assert killed and contents(tmp_path / "a.zarr") == alone
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]
    assert report["bands_retried"] > 0 and "were lost with their process or node" in caplog.text
    assert report["threads"] == 1 and len(report["nodes"]) >= 2  # the killed one may have finished none
    assert sum(node["bands"] for node in report["nodes"]) == report["bands"]
    assert told == sorted(told) and told[-1] == (WIDTH * HEIGHT,) * 2


def test_a_picture_goes_on_with_ray_and_without(
    loaded: CocoGan, alone: dict[str, bytes], cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "_SECONDS", 0)
    path = tmp_path / "a.zarr"
    for address, share in ((cluster.address, 0.3), (None, 0.6)):
        with pytest.raises(Stop):
            loaded.panorama(path, **ASKED, resume=True, ray=address, progress=stop_at(share))
        assert is_unfinished(path) and not path.exists()
    report = loaded.panorama(path, **ASKED, resume=True, ray=cluster.address)
    assert 0 < report["pixels_resumed"] < WIDTH * HEIGHT and contents(path) == alone


def test_errors_of_tasks_are_ours_and_leave_nothing(loaded: CocoGan, cluster: Any, tmp_path: Path) -> None:
    weight = loaded.generator.to_image.weight
    kept = weight.clone()
    weight.fill_(float("nan"))
    try:
        with pytest.raises(ValuesError, match="gives") as caught:
            loaded.panorama(tmp_path / "a.zarr", **ASKED, ray=cluster.address)
    finally:
        weight.copy_(kept)
    assert "on a node of the Ray cluster:\nTraceback" in caught.value.__notes__[0]
    time.sleep(0.5)
    assert list(tmp_path.iterdir()) == []


def test_a_band_that_is_lost_again_and_again_ends_in_a_sentence(
    cluster: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ray_cluster, "_PAUSE", 0.01)
    monkeypatch.setattr(ray_cluster, "_TRIES", 2)
    monkeypatch.setattr(ray_cluster, "_work", lambda order, band: os._exit(1))
    tasks = Cluster(cluster.address)
    tasks.join(1, gpu=False)
    with pytest.raises(WorkerError, match="shards 0 to 4 of level 0 were lost 2 times .*; with --resume the same"):
        list(tasks.run(0, iter([Band(0, range(5))])))
    assert tasks.retried == 1


def test_a_cluster_is_joined_and_left(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ray.shutdown()
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    with Nodes("auto") as nodes:
        with pytest.raises(WorkerError, match="no node of the Ray cluster at .* has 64 CPUs for a task"):
            nodes._cluster.join(64, gpu=False)
        assert ray.is_initialized()
    assert not ray.is_initialized()


def test_a_node_that_does_not_see_the_folder_or_has_other_versions_is_named(loaded: CocoGan, tmp_path: Path) -> None:
    job = Job(loaded.scene(), "tiny", 1, "cpu", 1, 2**28, 0, 0)
    order = Order(
        "token", tmp_path / "a.zarr", tmp_path / ".a.partial", 1, (True, True), job, np.empty(0, np.uint8),
        versions(), "",
    )  # fmt: skip
    missing = work(order, Band())
    assert isinstance(missing, Failure) and missing.kind is OutputError
    assert f"does not see {tmp_path} as the command does" in missing.sentence
    order.root.mkdir()
    (order.root / MARKER).write_text("token")
    assert isinstance(work(order, Band()), Report)
    other = work(order._replace(versions=versions() | {"torch": "1.0"}), Band())
    assert isinstance(other, Failure) and f"has torch {versions()['torch']}, not 1.0 as the command" in other.sentence


def test_bands_are_parts_of_rows() -> None:
    whole = [Region(top, left, 10, 20) for top in (0, 10) for left in (0, 20, 40)]
    todo = [Chunk(region, [(0, 10), (10, 10)], 0) for region in whole][1:]  # the first is done
    found = list(_bands(todo, 2, 2))
    assert [band.shards for band in found] == [range(2, 6), range(6, 10), range(10, 12)]
    assert [chunk for band in found for chunk in band.chunks] == todo


@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        ({"out": "a.tif"}, OutputError, "a.tif would have one writer, .*; name it .zarr"),
        ({"workers": 2}, TaskError, "a Ray cluster has workers of its own; leave out workers and devices"),
        ({"devices": "cuda:0"}, TaskError, "a Ray cluster has workers of its own"),
        ({"dry_run": True}, TaskError, "a prediction is made by this machine alone; leave out ray"),
        ({"ray": "local"}, WorkerError, "'local' is no address of a Ray cluster: give host:port of its head"),
        ({"ray": "ray://head:10001"}, WorkerError, "'ray://head:10001' is no address of a Ray cluster"),
        ({"ray": "127.0.0.1:1"}, WorkerError, "no Ray cluster answers at 127.0.0.1:1; `ray start --head` starts one"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    loaded: CocoGan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any], error: type[ZelligeError], sentence: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    asked = {"out": "a.zarr", "ray": "127.0.0.1:1"} | settings
    with pytest.raises(error, match=sentence):
        loaded.panorama(tmp_path / asked.pop("out"), **ASKED, **asked)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(loaded: CocoGan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"needs the package 'ray'; .*'zellige\[ray\]'"):
        loaded.panorama(tmp_path / "a.zarr", **ASKED, ray="auto")
