"""What a OneGAN run leaves behind and survives, through the loop and the command."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zellige.cli import main
from zellige.engine.checkpoint.file import read_header, read_tensors
from zellige.errors import TrainingError
from zellige.training.data.scenes import FolderScenes
from zellige.training.loop import train
from zellige.training.recipe import with_settings
from zellige.training.systems.coco_gan.recipe import CocoGanRecipe
from zellige.training.systems.onegan import training as onegan
from zellige.training.systems.onegan.training import OneGanTraining

from ...sides import fill, noise
from .tiny_onegan import MODEL, one_thread, tiny

__all__ = ["one_thread"]

# Path R of made images from step 3 on, of real ones from step 5, hard codes in step 6.
RUN = tiny(
    batch=2, steps=6, phases=(1 / 3, 2 / 3), hard_from=0.8, hard_choice=2, log_every=1, checkpoint_every=2,
    sample_every=6,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scenes")
    for kind in ("objects", "backgrounds"):
        fill(path / kind, noise(64, 64), 4)
    return path


class Breaking(FolderScenes):
    """Scenes that can be read `after` times."""

    after = 0

    def scene(self, index: int) -> Any:
        self.after -= 1
        if self.after < 0:
            raise OSError("the disk is gone")
        return super().scene(index)


def run(folder: Path, out: Path, settings: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    recipe = with_settings(RUN, {"data": str(folder)} | (settings or {}))
    return train(recipe, recipe.open_data(0), out, **{"workers": 0} | options)


def logged(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("finished")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    report = run(folder, out)
    torch.set_num_threads(threads)
    return out, report


def test_crash_in_the_second_phase_changes_nothing(folder, finished, tmp_path):
    scenes = Breaking(folder, (64, 64))
    scenes.after = 3 * RUN.batch
    with pytest.raises(OSError, match="the disk is gone"):
        train(with_settings(RUN, {"data": str(folder)}), scenes, tmp_path, workers=0)
    assert [line["step"] for line in logged(tmp_path)] == [1, 2, 3]
    run(folder, tmp_path, resume=True)
    assert [line["step"] for line in logged(tmp_path)] == [1, 2, 3, 4, 5, 6]
    there, here = (read_tensors(read_header(out / "state.safetensors")) for out in (finished[0], tmp_path))
    assert there.keys() == here.keys() and not [name for name in there if not torch.equal(there[name], here[name])]
    assert (tmp_path / "model.safetensors").read_bytes() == (finished[0] / "model.safetensors").read_bytes()
    sheet = "samples/0000006.png"
    assert (tmp_path / sheet).read_bytes() == (finished[0] / sheet).read_bytes()


def test_log_follows_the_phases(finished):
    lines = logged(finished[0])
    assert [("encoded_mask" in line, "again_mask" in line) for line in lines] == [
        (False, False), (False, False), (True, False), (True, False), (True, True), (True, True),
    ]  # fmt: skip


def test_mean_is_over_the_steps_that_have_the_term(folder, finished, tmp_path):
    run(folder, tmp_path, {"log_every": 6})
    whole = logged(tmp_path)[0]
    for name, steps in (("critic", slice(0, 6)), ("encoded_mask", slice(2, 6)), ("again_mask", slice(4, 6))):
        assert whole[name] == pytest.approx(np.mean([line[name] for line in logged(finished[0])[steps]]), abs=2e-5)


def test_nan_sets_the_run_back_and_other_data_follow(folder, finished, tmp_path, monkeypatch, caplog):
    class Poisoned(OneGanTraining):
        done = 0

        def step(self, *arguments: Any) -> Any:
            self.done += 1
            if self.done == 4:
                self.networks.background_encoder.bypass[0].conv.weight.data.fill_(torch.nan)
            return super().step(*arguments)

    monkeypatch.setattr(onegan, "OneGanTraining", Poisoned)
    report = run(folder, tmp_path)
    assert "step 4 gave values that are not finite; back to the good state of step 2" in caplog.text
    assert (report["steps"], report["recoveries"]) == (6, 1)
    undisturbed, recovered = ([line["critic"] for line in logged(out)] for out in (finished[0], tmp_path))
    assert undisturbed[:2] == recovered[:2] and undisturbed[2] != recovered[2]


def test_too_many_nan_end_the_run_with_advice_for_this_system(folder, tmp_path, monkeypatch):
    class Poisoned(OneGanTraining):
        def step(self, *arguments: Any) -> Any:
            return super().step(*arguments) | {"critic": torch.tensor(torch.nan)}

    monkeypatch.setattr(onegan, "OneGanTraining", Poisoned)
    with pytest.raises(TrainingError, match="lower the learning rates .*--set precision=fp32"):
        run(folder, tmp_path, {"phases": [1, 1]})


def test_report_and_model_say_what_was_trained(finished):
    out, report = finished
    header = read_header(out / "model.safetensors")
    assert (header.system, header.config["children"], report["steps"]) == ("onegan", 7, 6)
    assert header.details["training"]["weights"]["critic_background"] == 10
    assert all(name.startswith("networks.") for name in header.tensors)


def test_state_of_another_system_is_refused(finished):
    with pytest.raises(TrainingError, match="is not the state of a coco-gan training run"):
        train(CocoGanRecipe(batch=2), None, finished[0], resume=True)


def test_the_command_trains_on_a_folder(folder, tmp_path, monkeypatch, capfd):
    sizes = [text for name, value in MODEL.items() for text in ("--set", f"model.{name}={value}")]
    arguments = ["--data", str(folder), "--out", str(tmp_path / "run"), "--workers", "0", "--device", "cpu"]
    settings = ["--steps", "1", "--set", "batch=2", "--set", "weights.mask=0.5", *sizes]
    monkeypatch.setattr(sys, "argv", ["zellige", "train", "emoji", *arguments, *settings, "--json"])
    with pytest.raises(SystemExit, match="0"):
        main()
    report = json.loads(capfd.readouterr().out)
    assert (report["recipe"], report["steps"]) == ("emoji", 1)
    details = read_header(tmp_path / "run/model.safetensors").details
    assert (details["licence"], details["training"]["weights"]["mask"]) == ("the user's", 0.5)
