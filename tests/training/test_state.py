"""A saved state is all that the next step depends on, or it is refused."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from zellige.engine.checkpoint.file import read_header, read_tensors, write_checkpoint
from zellige.engine.systems.coco_gan.config import CocoGanConfig
from zellige.errors import CheckpointError, TrainingError
from zellige.training.recipe import with_settings
from zellige.training.state import Progress, load_networks, load_state, save_state
from zellige.training.systems.coco_gan.recipe import CocoGanRecipe
from zellige.training.systems.coco_gan.training import CocoGanTraining

TINY = CocoGanRecipe(
    model=CocoGanConfig(rows=3, columns=3, patch=4, latent=4, width=1, critic_width=1, head_width=4, latent_head=True),
    batch=4, content=100, beyond=1,
)  # fmt: skip
PROGRESS = Progress(step=2, recoveries=1, seed=9)


def training(seed: int = 0, **settings: Any) -> CocoGanTraining:
    return CocoGanTraining(with_settings(TINY, settings), torch.device("cpu"), seed)


def advance(run: CocoGanTraining, step: int) -> dict[str, float]:
    random = torch.Generator().manual_seed(step)
    real = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8, generator=random)
    positions = torch.randint(0, 2, (4, 2), generator=random).double()
    return {name: float(value) for name, value in run.step((real, positions), 0.0).items()}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a run after two steps."""
    path = tmp_path_factory.mktemp("state") / "state.safetensors"
    run = training()
    for step in range(2):
        advance(run, step)
    save_state(path, run, PROGRESS)
    return path


def test_loaded_run_takes_the_next_steps_of_the_saved_one(saved):
    original, loaded = training(), training(seed=5)
    for step in range(2):
        advance(original, step)
    load_state(saved, loaded)
    for step in range(2, 4):
        assert advance(loaded, step) == advance(original, step)


def test_loaded_state_is_saved_to_the_same_bytes(saved, tmp_path):
    run = training(seed=5)
    progress = load_state(saved, run)
    save_state(tmp_path / "again.safetensors", run, progress)
    assert (tmp_path / "again.safetensors").read_bytes() == saved.read_bytes()


def test_progress_comes_back(saved):
    assert load_state(saved, training()) == PROGRESS


def test_state_before_the_first_step_clears_the_optimisers(tmp_path):
    run, path = training(), tmp_path / "state.safetensors"
    save_state(path, run, Progress())
    advance(run, 0)
    load_state(path, run)
    assert all(not optimiser.state_dict()["state"] for optimiser in run.optimisers.values())


def spoil_network(run: CocoGanTraining) -> None:
    run.critic.critic.bias.data[0] = torch.nan


def spoil_statistics(run: CocoGanTraining) -> None:
    run.average.norm.running_var[0] = torch.inf


def spoil_number(run: CocoGanTraining) -> None:
    run.real_distance.fill_(torch.nan)


def spoil_moment(run: CocoGanTraining) -> None:
    state: Any = run.optimisers["generator"].state
    next(iter(state.values()))["exp_avg_sq"].view(-1)[0] = torch.inf


FAULTS: dict[Callable[[CocoGanTraining], None], str] = {
    spoil_network: r"critic\.critic\..*bias",
    spoil_statistics: r"average\.norm\.running_var",
    spoil_number: r"number\.real_distance",
    spoil_moment: r"optimiser\.generator\.0\.exp_avg_sq",
}


@pytest.mark.parametrize(("spoil", "name"), FAULTS.items(), ids=[fault.__name__ for fault in FAULTS])
def test_value_that_is_not_finite_is_never_saved(spoil, name, tmp_path):
    run, path = training(), tmp_path / "state.safetensors"
    advance(run, 0)
    save_state(path, run, Progress(step=1))
    before = path.read_bytes()
    spoil(run)
    with pytest.raises(TrainingError, match=f"^{name} is not finite at step 2; the state is not saved$"):
        save_state(path, run, Progress(step=2))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["state.safetensors"]


@pytest.mark.parametrize(
    ("settings", "part"),
    [({"model.width": 2}, "generator"), ({"model.critic_width": 2}, "critic"), ({"model.latent": 5}, "generator")],
)
def test_state_of_other_networks_is_refused(settings, part, saved):
    with pytest.raises(
        TrainingError, match=f"written by another recipe: its {part} does not fit; use the same settings"
    ):
        load_state(saved, training(**settings))


def test_model_is_not_a_state(tmp_path):
    path = tmp_path / "model.safetensors"
    write_checkpoint(path, {"generator.weight": torch.zeros(1)}, system="coco-gan", config={})
    with pytest.raises(TrainingError, match="is not the state of a coco-gan training run; name the folder of one"):
        load_state(path, training())


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.999])
def test_truncated_state_is_refused(share, saved, tmp_path):
    path = tmp_path / "state.safetensors"
    path.write_bytes(saved.read_bytes()[: int(share * saved.stat().st_size)])
    with pytest.raises(CheckpointError, match=r"state\.safetensors"):
        load_state(path, training())


def test_networks_come_without_their_optimisers_and_random_numbers(saved):
    run = training(seed=5)
    random = run.random.get_state()
    load_networks(saved, run)
    tensors = read_tensors(read_header(saved))
    for name, module in run.modules().items():
        for key, value in module.state_dict().items():
            assert torch.equal(value, tensors[f"{name}.{key}"])
    assert all(not optimiser.state_dict()["state"] for optimiser in run.optimisers.values())
    assert torch.equal(run.random.get_state(), random)


def rewritten(saved: Path, path: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], Any]) -> Path:
    """A copy of a state whose details and tensors were changed."""
    header = read_header(saved)
    details, tensors = deepcopy(header.details), read_tensors(header)
    change(details, tensors)
    write_checkpoint(path, tensors, system=header.system, config={}, details=details)
    return path


def set_in(part: str, key: str, value: Any) -> Callable[[dict[str, Any], Any], Any]:
    return lambda details, tensors: details[part].__setitem__(key, value)


@pytest.mark.parametrize("value", [None, "3", -1, 1.5, True, 2**63, [], {}], ids=repr)
@pytest.mark.parametrize("key", ["step", "recoveries", "seed"])
def test_progress_that_cannot_be_is_named(key, value, saved, tmp_path):
    path = rewritten(saved, tmp_path / "state.safetensors", set_in("progress", key, value))
    with pytest.raises(TrainingError, match=f"no sound state: the setting {key} cannot be .*; copy the file again, or"):
        load_state(path, training())


@pytest.mark.parametrize("key", ["step", "recoveries", "seed"])
def test_progress_that_is_missing_is_named(key, saved, tmp_path):
    path = rewritten(saved, tmp_path / "state.safetensors", lambda details, _: details["progress"].pop(key))
    with pytest.raises(TrainingError, match=f"no sound state: the setting {key} is missing; copy the file again, or"):
        load_state(path, training())


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("batch", None, "the setting batch cannot be None"),
        ("batch", -1, "the setting batch cannot be -1"),
        ("betas", [0, 2], r"the setting betas\.1 cannot be 2"),
        ("model", [], r"the setting model cannot be \[\]"),
        ("model", {"rows": 10**9}, r"the setting model\.rows cannot be 1000000000"),
        ("widht", 1, "the setting widht cannot be 1"),
    ],
)
def test_recipe_that_cannot_be_is_named(key, value, sentence, saved, tmp_path):
    path = rewritten(saved, tmp_path / "state.safetensors", set_in("recipe", key, value))
    with pytest.raises(TrainingError, match=f"no sound state: {sentence}"):
        load_state(path, training())


@pytest.mark.parametrize("part", ["progress", "recipe"])
@pytest.mark.parametrize("value", [None, 5, "text", []], ids=repr)
def test_progress_and_recipe_are_objects(part, value, saved, tmp_path):
    path = rewritten(saved, tmp_path / "state.safetensors", lambda details, _: details.__setitem__(part, value))
    with pytest.raises(TrainingError, match=r"no sound state: .* are no settings"):
        load_state(path, training())


MOMENT = "optimiser.generator.0."
TENSORS: dict[str, tuple[str, Callable[[torch.Tensor], torch.Tensor] | None, str]] = {
    "short random state": ("random", lambda t: t[:100], r"random is torch\.uint8 \[100\], and .* \[5056\] is"),
    "random state of zeros": ("random", torch.zeros_like, "holds no state of random numbers"),
    "no random state": ("random", None, "random is missing"),
    "no moment": (MOMENT + "exp_avg", None, r"optimiser\.generator\.0\.exp_avg is missing"),
    "moment of another shape": (MOMENT + "exp_avg_sq", lambda t: t[:1], r"0\.exp_avg_sq is torch\.float32 \[1\], and"),
    "moment of another dtype": (MOMENT + "step", torch.Tensor.long, r"0\.step is torch\.int64 \[\], and"),
    "negative moment": (MOMENT + "exp_avg_sq", lambda t: -1 - t, r"0\.exp_avg_sq is below 0"),
    "moment before the first step": (MOMENT + "step", torch.zeros_like, r"0\.step is below 1"),
    "negative count": ("number.updates", lambda t: t * 0 - 10, r"number\.updates is below 0"),
    "no count": ("number.updates", None, r"number\.updates is missing"),
}  # fmt: skip


@pytest.mark.parametrize("fault", TENSORS)
def test_tensor_that_no_run_would_save_is_named(fault, saved, tmp_path):
    name, change, sentence = TENSORS[fault]

    def damage(details: Any, tensors: dict[str, torch.Tensor]) -> None:
        tensor = tensors.pop(name)
        if change is not None:
            tensors[name] = change(tensor)

    path = rewritten(saved, tmp_path / "state.safetensors", damage)
    with pytest.raises(TrainingError, match=sentence):
        load_state(path, training())


@pytest.mark.parametrize("name", ["stranger", MOMENT + "x", "optimiser.generator.x.step", "optimiser.generator.1"])
def test_tensor_that_the_run_does_not_have_is_named(name, saved, tmp_path):
    path = rewritten(
        saved, tmp_path / "state.safetensors", lambda _, tensors: tensors.__setitem__(name, torch.ones(()))
    )
    with pytest.raises(TrainingError, match=f"nothing in this run is called '{name}'"):
        load_state(path, training())


def test_a_refused_state_leaves_the_run_as_it_was(saved, tmp_path):
    run, untouched = training(seed=5), training(seed=5)
    path = rewritten(saved, tmp_path / "state.safetensors", lambda _, tensors: tensors["random"].zero_())
    with pytest.raises(TrainingError):
        load_state(path, run)
    assert advance(run, 0) == advance(untouched, 0)
