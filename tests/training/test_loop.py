"""What a run leaves behind, and what it survives: crashes, kills, NaN."""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import zellige
from zellige.engine.checkpoint.file import read_header, read_tensors
from zellige.engine.files.atomic import PARTIAL
from zellige.engine.systems.coco_gan.config import CocoGanConfig
from zellige.errors import CheckpointError, OutputError, TrainingError
from zellige.training.data.folder import ImageFolder
from zellige.training.loop import train
from zellige.training.recipe import with_settings
from zellige.training.run_folder import RunFolder
from zellige.training.systems import find_recipe
from zellige.training.systems.coco_gan import training as coco_gan
from zellige.training.systems.coco_gan.recipe import CocoGanRecipe
from zellige.training.systems.coco_gan.training import CocoGanTraining

from .sides import fill, noise

TINY = CocoGanRecipe(
    model=CocoGanConfig(
        topology="cylinder", rows=4, columns=8, patch=4, latent=4, width=1, critic_width=1, head_width=4
    ),
    batch=4, steps=6, log_every=1, checkpoint_every=3, sample_every=3,
)  # fmt: skip
PLANE = {"model.topology": "plane"}
VARIANTS: dict[str, dict[str, Any]] = {
    "as published": {},
    "with head Q": {"model.latent_head": True, "content": 100},
    "accumulated": {"accumulate": 2},
    "beyond the boundary": PLANE | {"beyond": 1, "model.latent_head": True, "content": 100},
    "with the reference's quirks": {"model.reference_quirks": True},
    "as planet": {
        "batch": 8, "loss": "hinge", "penalty": 0, "consistency": 0, "diversity": 2,
        "sampling": "continuous",
        "precision": "bf16", "storage": "fp16", "model.dense": True, "model.padding": "none",
    },
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """As in the processes that are started here, so that their sums run in the same order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine tiny pictures of noise to train on."""
    return fill(tmp_path_factory.mktemp("pictures"), noise(16, 32), 9)


class Breaking(ImageFolder):
    """A folder that can be read `after` times."""

    def __init__(self, folder: Path, recipe: CocoGanRecipe, after: int, error: BaseException) -> None:
        cyclic = (False, recipe.model.topology == "cylinder")
        super().__init__(folder, recipe.model.size, cyclic=cyclic)
        self.after, self.error = after, error

    def crop(self, index: int, top: float, left: float, size: tuple[int, int]) -> Any:
        self.after -= 1
        if self.after < 0:
            raise self.error
        return super().crop(index, top, left, size)


def run(folder: Path, out: Path, settings: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    """Train the tiny network on the folder's pictures."""
    recipe = with_settings(TINY, settings or {})
    pictures = ImageFolder(folder, recipe.model.size, cyclic=(False, recipe.model.topology == "cylinder"))
    return train(recipe, pictures, out, **({"workers": 0} | options))


def crash(folder: Path, out: Path, step: int, settings: dict[str, Any], error: BaseException | None = None) -> None:
    """Train until the data of a step cannot be read."""
    recipe, fault = with_settings(TINY, settings), error or RuntimeError("the disk is gone")
    with pytest.raises(type(fault)):
        train(recipe, Breaking(folder, recipe, (step - 1) * recipe.batch, fault), out, workers=0)


def logged(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def steps(out: Path) -> list[int]:
    return [line["step"] for line in logged(out)]


def assert_same_end(actual: Path, expected: Path) -> None:
    there, here = (read_tensors(read_header(out / "state.safetensors")) for out in (expected, actual))
    assert here.keys() == there.keys()
    different = [name for name in there if not torch.equal(here[name], there[name])]
    assert not different, f"{len(different)} of {len(there)} tensors differ: {different[:5]}"
    model = "model.safetensors"
    assert (actual / model).read_bytes() == (expected / model).read_bytes()


@pytest.mark.parametrize("variant", VARIANTS)
def test_six_steps_equal_three_and_three_more(variant, folder, tmp_path):
    settings = VARIANTS[variant]
    run(folder, tmp_path / "whole", settings)
    run(folder, tmp_path / "halves", settings | {"steps": 3})
    run(folder, tmp_path / "halves", settings, resume=True)
    assert_same_end(tmp_path / "halves", tmp_path / "whole")
    assert steps(tmp_path / "halves") == [1, 2, 3, 4, 5, 6]


def test_worker_processes_do_not_change_the_result(folder, finished, tmp_path):
    run(folder, tmp_path, seed=7, workers=2, details={"recipe": "tiny", "licence": "the user's"})
    assert_same_end(tmp_path, finished[0])


def test_another_seed_gives_another_model(folder, tmp_path):
    for seed in (0, 1):
        run(folder, tmp_path / str(seed), {"steps": 1}, seed=seed)
    assert (tmp_path / "0/model.safetensors").read_bytes() != (tmp_path / "1/model.safetensors").read_bytes()


def test_resuming_a_finished_run_changes_nothing(folder, finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "again")
    details = {"recipe": "tiny", "licence": "the user's"}
    assert run(folder, tmp_path / "again", seed=7, resume=True, details=details)["steps"] == 6
    assert_same_end(tmp_path / "again", finished[0])


def test_crash_loses_the_steps_since_the_checkpoint_and_nothing_else(folder, tmp_path):
    settings = {"steps": 8, "decay_from": 0.4}
    run(folder, tmp_path / "whole", settings)
    crash(folder, tmp_path / "crashed", 6, settings)
    assert steps(tmp_path / "crashed") == [1, 2, 3, 4, 5]
    with (tmp_path / "crashed/log.jsonl").open("a") as log:
        log.write('{"step": 6, "cri')
    run(folder, tmp_path / "crashed", settings, resume=True)
    assert steps(tmp_path / "crashed") == [1, 2, 3, 4, 5, 6, 7, 8]
    assert_same_end(tmp_path / "crashed", tmp_path / "whole")


def test_log_line_after_a_resume_is_the_mean_of_the_steps_that_it_covers(folder, tmp_path):
    run(folder, tmp_path / "each", {"steps": 4})
    settings = {"steps": 4, "log_every": 4}
    crash(folder, tmp_path / "crashed", 4, settings)
    run(folder, tmp_path / "crashed", settings, resume=True)  # from step 3 on
    assert logged(tmp_path / "crashed")[0]["critic"] == logged(tmp_path / "each")[3]["critic"]


def test_interruption_says_where_it_goes_on(folder, tmp_path, caplog):
    crash(folder, tmp_path, 5, {}, KeyboardInterrupt())
    assert "stopped; go on from step 3 with --resume" in caplog.text


KILLED = {
    "model.patch": 4, "model.latent": 4, "model.width": 1, "model.critic_width": 1, "model.head_width": 4, "batch": 4,
    "steps": 24, "decay_from": 0.5, "log_every": 1, "checkpoint_every": 4, "sample_every": 6,
}  # fmt: skip
DETAILS: dict[str, Any] = {"workers": 0, "details": {"recipe": "celeba-64", "licence": "the user's"}}


def killed(folder: Path, out: Path) -> tuple[CocoGanRecipe, ImageFolder, Path]:
    """Recipe, pictures and folder of a run."""
    recipe = with_settings(find_recipe("celeba-64"), KILLED | {"data": str(folder)})
    return recipe, ImageFolder(folder, recipe.model.size), out


def finish(folder: Path, out: Path, *, resume: bool = False) -> None:
    train(*killed(folder, out), resume=resume, **DETAILS)


@pytest.fixture(scope="module")
def undisturbed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    finish(folder, out)
    return out


def whole_lines(out: Path) -> int:
    return (out / "log.jsonl").read_text().count("\n") if (out / "log.jsonl").exists() else 0


MOMENTS: dict[str, Callable[[Path], bool]] = {
    "before the first step": lambda out: (out / "state.safetensors").exists(),
    "between checkpoints": lambda out: whole_lines(out) >= 10,
    "while a checkpoint is written": lambda out: whole_lines(out) >= 4 and any(out.glob(PARTIAL)),
}


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServerContext]:
    """Starts processes that have imported what a run needs, on one thread as the tests are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        context = multiprocessing.get_context("forkserver")
        # The optimisers import dynamo at their first step.
        ours = ["zellige.training.systems.coco_gan.training", "zellige.training.loop"]
        context.set_forkserver_preload([*ours, "torch._dynamo", "torch.utils.tensorboard"])
        yield context


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_run_ends_as_an_undisturbed_one(moment, server, folder, undisturbed, tmp_path):
    out = tmp_path / "run"
    process = server.Process(target=train, args=killed(folder, out), kwargs=DETAILS)
    process.start()
    deadline = time.monotonic() + 600
    while process.is_alive() and not MOMENTS[moment](out):
        assert time.monotonic() < deadline, f"{moment} never came"
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, "it ended before it was killed"

    saved = read_header(out / "state.safetensors").details["progress"]["step"]
    assert whole_lines(out) - saved <= KILLED["checkpoint_every"]
    finish(folder, out, resume=True)
    assert_same_end(out, undisturbed)
    assert steps(out) == list(range(1, 25))
    left = {path.name for path in out.rglob("*") if "tfevents" not in path.name}
    assert left == {path.name for path in undisturbed.rglob("*") if "tfevents" not in path.name}


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the steps with these numbers, counted over the process, meet a weight that is not a number."""

    def choose(steps: Any, part: str = "generator", after: bool = False) -> None:
        class Poisoned(CocoGanTraining):
            done = 0

            def step(self, *arguments: Any) -> Any:
                self.done += 1
                weight = next(self.modules()[part].parameters()).data
                if self.done in steps and not after:
                    weight.fill_(torch.nan)
                metrics = super().step(*arguments)
                if self.done in steps and after:
                    weight.fill_(torch.nan)
                return metrics

        monkeypatch.setattr(coco_gan, "CocoGanTraining", Poisoned)

    return choose


@pytest.mark.parametrize("part", ["generator", "critic", "spatial_head"])
def test_nan_sets_the_run_back_to_the_last_good_state(part, poison, folder, tmp_path, caplog):
    poison({5}, part)
    report = run(folder, tmp_path)
    assert "step 5 gave values that are not finite; back to the good state of step 3" in caplog.text
    assert (report["steps"], report["recoveries"]) == (6, 1)
    assert steps(tmp_path) == [1, 2, 3, 4, 5, 6]
    for file in ("state.safetensors", "model.safetensors"):
        tensors = read_tensors(read_header(tmp_path / file))
        assert all(tensor.isfinite().all() for tensor in tensors.values() if tensor.is_floating_point())


def test_nan_that_no_loss_shows_is_found_before_it_is_saved(poison, folder, tmp_path, caplog):
    poison({3}, "average", after=True)
    report = run(folder, tmp_path)
    assert "step 3 gave values that are not finite; back to the good state of step 0" in caplog.text
    assert (report["steps"], report["recoveries"]) == (6, 1)


def test_after_a_nan_other_data_and_latents_come(poison, folder, tmp_path):
    run(folder, tmp_path / "undisturbed")
    poison({5})
    run(folder, tmp_path / "recovered")
    undisturbed, recovered = logged(tmp_path / "undisturbed"), logged(tmp_path / "recovered")
    assert [line["critic"] for line in undisturbed[:3]] == [line["critic"] for line in recovered[:3]]
    assert undisturbed[3]["critic"] != recovered[3]["critic"]


def test_recoveries_are_counted_over_a_resume(poison, folder, tmp_path):
    poison({2})
    run(folder, tmp_path, {"steps": 3})
    poison({2})
    assert run(folder, tmp_path, resume=True)["recoveries"] == 2
    assert read_header(tmp_path / "model.safetensors").details["training"]["recoveries"] == 2


def test_too_many_nan_end_the_run_with_advice(poison, folder, tmp_path):
    poison(range(5, 100))
    with pytest.raises(TrainingError, match="for the 6th time; lower the learning rates") as error:
        run(folder, tmp_path)
    assert "--set lr_critic=1e-4" in str(error.value)
    state = read_header(tmp_path / "state.safetensors")
    assert state.details["progress"]["step"] == 3
    assert all(tensor.isfinite().all() for tensor in read_tensors(state).values() if tensor.is_floating_point())


def test_run_is_not_overwritten(folder, tmp_path):
    run(folder, tmp_path, {"steps": 1})
    before = (tmp_path / "state.safetensors").read_bytes()
    with pytest.raises(TrainingError, match="already holds a run; continue it with --resume or choose another --out"):
        run(folder, tmp_path)
    assert (tmp_path / "state.safetensors").read_bytes() == before


def test_nothing_to_resume_leaves_nothing_behind(folder, tmp_path):
    with pytest.raises(TrainingError, match="holds no state to resume; start without --resume"):
        run(folder, tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"model.width": 2}, "holds a run with model.width = 1, not 2; use the same settings"),
        # The same shapes, and another meaning.
        ({"model.padding": "replicate"}, "holds a run with model.padding = zeros, not replicate"),
    ],
)
def test_run_of_another_model_is_not_resumed(settings, sentence, folder, tmp_path):
    run(folder, tmp_path, {"steps": 1})
    with pytest.raises(TrainingError, match=sentence):
        run(folder, tmp_path, settings, resume=True)


def test_run_of_another_seed_is_not_resumed(folder, tmp_path):
    run(folder, tmp_path, {"steps": 1}, seed=5)
    with pytest.raises(TrainingError, match="holds a run of seed 5, not 0; go on with --seed 5"):
        run(folder, tmp_path, resume=True)


def test_learning_rates_may_change_on_resume(folder, tmp_path):
    run(folder, tmp_path, {"steps": 3})
    assert run(folder, tmp_path, {"lr_critic": 1e-5}, resume=True)["steps"] == 6


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seed_out_of_bounds_is_refused(seed, folder, tmp_path):
    with pytest.raises(TrainingError, match=rf"the seed must be 0 or more and below 2\*\*63, not {seed}"):
        run(folder, tmp_path / "run", seed=seed)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("workers", [-1, 257])
def test_workers_out_of_bounds_are_refused(workers, folder, tmp_path):
    with pytest.raises(TrainingError, match=f"{workers} processes cannot load data; use --workers 0 to 256"):
        run(folder, tmp_path / "run", workers=workers)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["a folder", "a pipe"])
@pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.damaged", "state.safetensors", "model.safetensors"])
def test_what_is_no_file_is_neither_opened_nor_replaced(make, name, folder, tmp_path):
    make(tmp_path / name)
    for resume in (False, True):
        with pytest.raises(TrainingError, match=f"{name} is a .* and should be a file of the run; move it away"):
            run(folder, tmp_path, resume=resume)


def test_file_in_place_of_the_samples_is_named(folder, tmp_path):
    (tmp_path / "samples").touch()
    with pytest.raises(OutputError, match="cannot be made a folder for the run: File exists"):
        run(folder, tmp_path)


def test_resume_says_how_pictures_have_changed(tmp_path, caplog):
    folder = fill(tmp_path / "pictures", noise(16, 32), 5)
    run(folder, tmp_path / "run", {"steps": 1})
    run(folder, tmp_path / "run", {"steps": 2}, resume=True)
    assert not caplog.records
    fill(folder, noise(16, 31), 1)
    (folder / "004.png").unlink()
    (folder / "more.png").write_bytes((folder / "003.png").read_bytes())
    run(folder, tmp_path / "run", {"steps": 3}, resume=True)
    assert "not those that the run was learning from: 2 were added or changed, 2 are gone" in caplog.text


def test_resume_on_other_data_says_so(folder, tmp_path, caplog):
    run(folder, tmp_path, {"steps": 1, "data": "first"})
    run(folder, tmp_path, {"steps": 2, "data": "second"}, resume=True)
    assert f"the run was learning from {Path('first').absolute()} and goes on with" in caplog.text


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """Let writes fail as on a full disk, whoever runs the tests."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("most", [0, 2_000], ids=["no byte", "no room for a state"])
def test_full_disk_is_said_and_the_state_can_be_resumed(most, folder, undisturbed, tmp_path):
    out = tmp_path / "run"
    recipe, *_ = killed(folder, out)
    with pytest.raises(RuntimeError):
        train(recipe, Breaking(folder, recipe, 9 * recipe.batch, RuntimeError()), out, workers=0)
    before = (out / "state.safetensors").read_bytes()
    with no_file_beyond(most), pytest.raises(OutputError, match=r"cannot be written.*File too large"):
        finish(folder, out, resume=True)
    assert (out / "state.safetensors").read_bytes() == before
    finish(folder, out, resume=True)
    assert_same_end(out, undisturbed)


def test_folder_that_a_run_is_writing_to_is_left_alone(folder, tmp_path):
    with RunFolder(tmp_path).prepared(), pytest.raises(TrainingError, match="another run is writing to"):
        run(folder, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["samples"]
    run(folder, tmp_path, {"steps": 1})


def test_folder_that_cannot_be_made_is_named(folder, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file/run cannot be made a folder for the run"):
        run(folder, tmp_path / "file/run")


def test_other_run_gives_its_networks_and_not_its_optimisers(folder, tmp_path):
    run(folder, tmp_path / "first", PLANE)
    recipe = with_settings(TINY, PLANE | {"beyond": 1})
    with pytest.raises(RuntimeError):
        pictures = Breaking(folder, recipe, 0, RuntimeError("before the first step"))
        train(recipe, pictures, tmp_path / "second", start_from=tmp_path / "first", workers=0)
    first, second = (read_tensors(read_header(tmp_path / name / "state.safetensors")) for name in ("first", "second"))
    networks = {name for name in first if name.split(".")[0] in ("generator", "critic", "spatial_head", "average")}
    assert all(torch.equal(first[name], second[name]) for name in networks)
    assert any(name.startswith("optimiser.") for name in first)
    assert not any(name.startswith("optimiser.") for name in second)


def test_run_to_start_from_must_exist(folder, tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere/state\.safetensors does not exist"):
        run(folder, tmp_path / "run", start_from=tmp_path / "nowhere")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder and the report of a run."""
    out = tmp_path_factory.mktemp("finished")
    return out, run(folder, out, seed=7, details={"recipe": "tiny", "licence": "the user's"})


def test_log_has_one_object_a_line(finished):
    lines = logged(finished[0])
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[0].keys() >= {"critic", "generator", "wasserstein", "penalty", "consistency", "steps_per_second"}


def test_samples_are_pictures(finished):
    sheets = sorted((finished[0] / "samples").iterdir())
    assert [path.name for path in sheets] == ["0000003.png", "0000006.png"]
    for path in sheets:
        with Image.open(path) as sheet:
            assert (sheet.mode, sheet.width % (32 + 2)) == ("RGB", 32)


def test_model_opens_and_generates(finished):
    images = zellige.load(finished[0] / "model.safetensors", device="cpu").generate(2, seed=1)
    assert (images.shape, images.dtype) == ((2, 16, 32, 3), np.uint8)
    assert (images[0] != images[1]).any()


def test_model_says_where_it_comes_from(finished):
    details = read_header(finished[0] / "model.safetensors").details
    assert (details["recipe"], details["licence"]) == ("tiny", "the user's")
    assert details["training"] == TINY.model_dump(mode="json") | {"seed": 7, "recoveries": 0}


def test_model_stores_halves_on_request(folder, tmp_path):
    run(folder, tmp_path, {"steps": 1, "storage": "fp16"})
    tensors = read_tensors(read_header(tmp_path / "model.safetensors"))
    assert {tensor.dtype for tensor in tensors.values() if tensor.ndim > 1} == {torch.float16}
    assert {tensor.dtype for tensor in tensors.values() if tensor.ndim == 1} == {torch.float32}


def test_state_is_not_mistaken_for_the_model(finished):
    with pytest.raises(zellige.ZelligeError, match=r"load model\.safetensors beside it"):
        zellige.load(finished[0] / "state.safetensors", device="cpu")


def test_report_holds_what_the_command_prints(finished):
    out, report = finished
    assert report["seconds"] > 0 and report["steps_per_second"] > 0
    assert {name: report[name] for name in ("steps", "recoveries", "device", "precision", "seed", "model")} == {
        "steps": 6,
        "recoveries": 0,
        "device": "cpu",
        "precision": "fp32",
        "seed": 7,
        "model": str(out / "model.safetensors"),
    }


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_tensorboard_gets_events(finished):
    assert any(finished[0].glob("events.out.tfevents.*"))


def test_tensorboard_is_not_needed(folder, tmp_path, monkeypatch):
    for name in ("tensorboard", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    run(folder, tmp_path, {"steps": 1})
    assert not any(tmp_path.glob("events.out.tfevents.*"))
