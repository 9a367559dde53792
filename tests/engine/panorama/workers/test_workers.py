"""Pictures by several processes: the bytes of one process, and nothing left behind if one of them is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from zellige.engine.panorama import journal as journals
from zellige.engine.panorama.canvas import is_unfinished
from zellige.engine.panorama.journal import Journal, journal_of
from zellige.engine.panorama.render import predict_render, render_file
from zellige.engine.panorama.workers import devices_of
from zellige.engine.panorama.workers.processes import Crew
from zellige.engine.systems.coco_gan.model import CocoGan
from zellige.errors import BudgetError, DeviceError, ValuesError, WorkerError

pytest.importorskip("tifffile")
Model = Callable[..., CocoGan]
CPU = torch.device("cpu")
BUDGET = 2**29
# A moving model with dense places in two rows of tiles, half steps in one row, and a picture with one latent.
KINDS = {"moving": ("dense torus", 552, 528), "half steps": ("cylinder", 32 * 160, 24), "still": ("large", None, None)}
WHOLE = "half steps"  # ten tiles


class Stop(Exception):
    """Ends a run in the middle."""


@pytest.fixture(scope="module")
def crews() -> Iterator[dict[int, Crew]]:
    with Crew([CPU] * 2) as two, Crew([CPU] * 3) as three:
        yield {2: two, 3: three}


def rendered(model: Model, kind: str, path: Path, crew: Crew | None = None, **settings: Any) -> dict[str, Any]:
    name, width, height = KINDS[kind]
    loaded = model(name)
    scene = loaded.scene(width, height, 3)
    return render_file(loaded.patches, scene, path, budget=BUDGET, name="tiny", crew=crew, **settings)


def contents(path: Path) -> dict[str, bytes]:
    files = path.rglob("*") if path.is_dir() else [path]
    return {str(file.relative_to(path)): file.read_bytes() for file in files if file.is_file()}


def half(then: Callable[[], None]) -> Callable[[int, int], None]:
    """A progress that does something when half of the picture is there."""

    def advance(done: int, total: int) -> None:
        if done > total / 2:
            then()

    return advance


def stop() -> None:
    raise Stop


def left_open() -> list[str]:
    """Handles of workers' shared memory in this process."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the handle by which the folder itself was read
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return [link for link in found if "zellige" in link]


def is_running(process: int) -> bool:
    """Whether a process runs; one that has ended may wait for its parent to ask."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("name", ["a.tif", "a.zarr", "a.png"])
@pytest.mark.parametrize("kind", KINDS)
def test_workers_make_the_bytes_of_one_process(
    model: Model, crews: dict[int, Crew], tmp_path: Path, kind: str, name: str
) -> None:
    pytest.importorskip({"a.zarr": "zarr"}.get(name, "tifffile"))
    alone = rendered(model, kind, tmp_path / name)
    assert (alone["workers"], "seconds_start" in alone) == (1, False)
    for count, crew in crews.items():
        path = tmp_path / str(count) / name
        path.parent.mkdir()
        report = rendered(model, kind, path, crew)
        assert contents(path) == contents(tmp_path / name)
        assert (report["workers"], report["patches"] >= alone["patches"]) == (count, True)
        assert report["seconds_start"] > 0 and report["seconds_generate"] > 0
        assert 0 < report["peak_memory_bytes"] <= report["predicted_memory_bytes"] <= BUDGET


def test_threads_are_divided_and_change_no_byte_with_dense_places(
    model: Model, crews: dict[int, Crew], tmp_path: Path
) -> None:
    dense, settings = model("dense"), {"budget": BUDGET, "name": "tiny"}
    scene = dense.scene(32 * 48, None, 3)  # three tiles
    render_file(dense.patches, scene, tmp_path / "a.tif", **settings)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        report = render_file(dense.patches, scene, tmp_path / "b.tif", crew=crews[2], **settings)
    finally:
        torch.set_num_threads(before)
    assert report["threads"] == 2
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_a_killed_worker_is_named_and_another_number_of_workers_resumes(
    model: Model, crews: dict[int, Crew], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "_SECONDS", 0)
    path = tmp_path / "a.tif"
    before = left_open()
    with Crew([CPU] * 2) as crew:
        kill = half(lambda: os.kill(crew._processes[1].pid, signal.SIGKILL))
        with pytest.raises(WorkerError, match=r"worker 2 of 2, process \d+, was killed by SIGKILL, as the system does"):
            rendered(model, WHOLE, path, crew, journal=Journal(path, {}, resume=True), advance=kill)
        processes = list(crew._processes)
    assert None not in [process.poll() for process in processes]
    assert left_open() == before
    assert is_unfinished(path) and not path.exists()

    first = json.loads(journal_of(path).read_text().splitlines()[0])
    report = rendered(model, WHOLE, path, crews[3], journal=Journal(path, {}, resume=True))
    assert 0 < report["pixels_resumed"] < report["width"] * report["height"]
    assert report["threads"] == first["threads"]
    rendered(model, WHOLE, tmp_path / "b.tif")
    assert path.read_bytes() == (tmp_path / "b.tif").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.tif", "b.tif"]


def test_workers_resume_what_one_process_has_begun(
    model: Model, crews: dict[int, Crew], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "_SECONDS", 0)
    for name in ("a.tif", "b.tif"):
        path = tmp_path / name
        if name == "a.tif":
            with pytest.raises(Stop):
                rendered(model, "moving", path, journal=Journal(path, {}, resume=True), advance=half(stop))
        report = rendered(model, "moving", path, crews[2], journal=Journal(path, {}, resume=True))
        assert (report["pixels_resumed"] > 0) == (name == "a.tif")
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_errors_of_workers_are_ours_and_a_killed_worker_leaves_nothing(model: Model, tmp_path: Path) -> None:
    loaded = model("cylinder")
    scene = loaded.scene(32 * 160, None, 3)
    weight = loaded.generator.to_image.weight
    kept = weight.clone()
    with Crew([CPU]) as crew:
        weight.fill_(float("nan"))
        with pytest.raises(ValuesError, match="tiny gives") as caught:
            render_file(loaded.patches, scene, tmp_path / "a.tif", budget=BUDGET, name="tiny", crew=crew)
        assert "in worker 1:\nTraceback" in caught.value.__notes__[0]
        weight.copy_(kept)
        kill = half(crew._processes[0].kill)
        with pytest.raises(WorkerError, match="worker 1 of 1, process"):
            render_file(loaded.patches, scene, tmp_path / "a.tif", budget=BUDGET, name="tiny", crew=crew, advance=kill)
        with pytest.raises(WorkerError, match="worker 1 of 1, process"):
            render_file(loaded.patches, scene, tmp_path / "a.tif", budget=BUDGET, name="tiny", crew=crew)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("end", ["Ctrl-C", "kill"])
def test_a_command_that_is_ended_leaves_no_worker(model_file: Callable[[str], Path], tmp_path: Path, end: str) -> None:
    pages = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    # fmt: off
    command = [sys.executable, "-m", "zellige.cli", "panorama", str(model_file("dense wide")), "--size", "3840000x",
               "--memory", "256MiB", "--device", "cpu", "--precision", "fp32", "--workers", "2", "--out", "a.tif"]
    # fmt: on
    run = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    until = time.monotonic() + 120
    journal = journal_of(tmp_path / "a.tif")
    while not (journal.exists() and journal.stat().st_size) and run.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    workers = list(map(int, Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()))
    assert len(workers) == 2 and all(map(is_running, workers))
    os.killpg(run.pid, signal.SIGINT if end == "Ctrl-C" else signal.SIGKILL)
    said = run.communicate(timeout=60)[1]
    assert (run.returncode, said) == ((130, "zellige: stopped\n") if end == "Ctrl-C" else (-signal.SIGKILL, ""))
    while any(map(is_running, workers)) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(map(is_running, workers))
    assert (list(tmp_path.iterdir()) == []) == (end == "Ctrl-C")  # a killed process leaves its picture to a resume
    assert not any("zellige" in name for name in set(os.listdir("/dev/shm")) - pages if pages)


def test_a_prediction_uses_the_workers_and_writes_nothing(model: Model, crews: dict[int, Crew], tmp_path: Path) -> None:
    loaded = model("cylinder")
    found = predict_render(
        loaded.patches, loaded.scene(32 * 160, None, 3), tmp_path / "a.tif", budget=BUDGET, crew=crews[2]
    )
    assert (found["workers"], found["threads"]) == (2, max(1, torch.get_num_threads() // 2))
    assert found["predicted_seconds"] > crews[2].seconds_start > 0
    assert list(tmp_path.iterdir()) == []


def test_a_budget_too_small_for_all_workers_names_one_that_suffices(model: Model, tmp_path: Path) -> None:
    loaded = model("cylinder")
    with pytest.raises(BudgetError, match=r"in each of 256 workers; .* Try --memory \d+MiB or fewer workers") as caught:
        loaded.panorama(tmp_path / "a.tif", 3200, memory="64MiB", workers=256, dry_run=True)
    assert list(tmp_path.iterdir()) == [] and int(str(caught.value).rpartition("--memory ")[2].split("MiB")[0]) > 256


@pytest.mark.parametrize(
    ("workers", "devices", "error", "sentence"),
    [
        (0, None, WorkerError, "must be from 1 to 256, not 0"),
        (257, None, WorkerError, "must be from 1 to 256, not 257"),
        (1, [], WorkerError, "devices must be from 1 to 256, not 0"),
        (3, "cpu,cpu", WorkerError, "3 workers do not fit 2 devices"),
        (1, "cpu", DeviceError, "are CUDA devices such as cuda:0,cuda:1, not cpu"),
        (2, ["nonsense", "cpu"], DeviceError, "there is no device 'nonsense'"),
        (1, "cuda:99", DeviceError, "CUDA device|there is no device 'cuda:99'"),
    ],
)
def test_workers_that_cannot_be_are_refused(workers: int, devices: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        devices_of(workers, devices, CPU)


def test_workers_divide_a_cpu_and_one_is_this_process() -> None:
    assert devices_of(1, None, CPU) == [] and devices_of(3, None, CPU) == [CPU] * 3
    with pytest.raises(DeviceError, match="Name a CUDA device for each worker, such as --devices cuda:0,cuda:1"):
        devices_of(2, None, torch.device("cuda"))
