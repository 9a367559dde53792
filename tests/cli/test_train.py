from pathlib import Path

import pytest

from zellige.training.systems import RECIPES

from .command import Run, refused

TINY = (
    "--data", "pictures", "--set", "model.rows=3", "--set", "model.columns=3", "--set", "model.patch=4",
    "--set", "model.width=1", "--set", "model.critic_width=1", "--set", "batch=2", "--workers", "0",
)  # fmt: skip


def train(*arguments: object, recipe: str = "celeba-64", out: str = "run") -> tuple[object, ...]:
    return "train", recipe, "--out", out, *arguments


REFUSED = {
    "unknown recipe": (train(recipe="nonsense"), "there is no recipe 'nonsense'; recipes: "),
    "unknown setting": (train("--set", "speed=2"), "the recipe has no setting 'speed'; it has "),
    "unknown setting of the model": (train("--set", "model.speed=2"), "the recipe has no setting 'model.speed'"),
    "setting without a value": (train("--set", "batch"), "'batch' is no setting; write --set KEY=VALUE"),
    "bad value": (train("--set", "batch=many"), "the setting batch cannot be 'many'"),
    "bad value of the model": (train("--set", "model.patch=7"), "patch must be a power of two"),
    "deep value": (train("--set", f"batch={'[' * 100_000}"), "the value of batch is nested too deeply"),
    "impossible lattice": (train("--set", "model.rows=1"), "needs at least 3 micro patches, not 1"),
    "a setting twice": (train("--set", "batch=2", "--set", "batch=4"), "the setting batch is given more than once"),
    "an option and its setting": (train("--steps", 3, "--set", "steps=4"), "the setting steps is given more than once"),
    "data without images": (train("--data", "empty"), "empty holds no readable image"),
    "missing data": (train("--data", "gone"), "gone is not a folder"),
    "run in a file": (train(*TINY, "--steps", 1, out="plain.txt"), "plain.txt cannot be made a folder for the run"),
    "run among its data": (train(*TINY, out="pictures/run"), "--out pictures/run lies in the data "),
    "run in its data": (train(*TINY, out="./pictures"), "--out pictures lies in the data "),
    "run over its start": (
        train(*TINY, "--from", "older", out="./older"), "--out would write older, which is also --from"),
    "start of a resumed run": (
        train(*TINY, "--resume", "--from", "older"), "--resume does not use --from; leave it out"),
    "training on no device": (train(*TINY, "--steps", 1, "--device", "tpu"), "use auto, cpu or cuda"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_sentence_and_leaves_nothing(run: Run, folder: Path, case: str) -> None:
    refused(run, *REFUSED[case])


def test_an_unknown_recipe_gets_the_list_of_all(run: Run) -> None:
    assert all(name in run(*train(recipe="nonsense"))[2] for name in RECIPES)
