"""Saves a training run so that it goes on bit for bit: networks, optimisers, random numbers, without pickle."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from zellige.errors import ConfigError, TrainingError

from ..engine.checkpoint.file import Header, read_header, read_tensors, write_checkpoint
from ..engine.checkpoint.header import TensorInfo
from ..engine.files.hostile import shown
from .data.listing import NO_FILES, Listing
from .recipe import Recipe, Training, broken_rule

__all__ = ["Progress", "Saved", "load_networks", "load_state", "pictures_of", "read_saved", "save_state"]

# The values that Adam keeps for a parameter. It keeps none for a parameter that has had no gradient yet.
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
_PICTURES = "pictures."
_ADVICE = "copy the file again, or start the run anew with another --out"


class Progress(BaseModel):
    """The progress of a run: steps finished, times that a NaN set it back, the seed that it started from."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    step: int = Field(0, ge=0, le=10**9)
    recoveries: int = Field(0, ge=0, le=10**9)
    seed: int = Field(0, ge=0, lt=2**63)


class _Written(Progress):
    """The progress in a file, which must name every field: a missing step does not mean step 0."""

    step: int = Field(ge=0, le=10**9)
    recoveries: int = Field(ge=0, le=10**9)
    seed: int = Field(ge=0, lt=2**63)


@dataclass(frozen=True)
class Saved:
    """The description of a run in its state file, which is read before any tensor.

    Attributes:
        header: header of the file.
        progress: progress of the run.
        recipe: recipe of the run.
    """

    header: Header
    progress: Progress
    recipe: Recipe


def save_state(path: Path, training: Training, progress: Progress, listings: Mapping[str, Listing] = NO_FILES) -> None:
    """Write everything that the next step depends on, atomically.

    Args:
        path: of the state file.
        training: the training to save.
        progress: its progress.
        listings: the pictures that it learns from, if they are files, so that a resumed run can say how they changed.
    Raises:
        TrainingError: a network or an optimiser holds a value that is not finite. A bad state never replaces a good
            one.
        OutputError: the file cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _named(training)}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise TrainingError(f"{name} is not finite at step {progress.step}; the state is not saved")
    tensors |= {_PICTURES + part: torch.from_numpy(listing.content()) for part, listing in listings.items()}
    details = {"progress": progress.model_dump(), "recipe": training.recipe.model_dump(mode="json")}
    write_checkpoint(path, tensors, system=training.system, config={}, details=details)


def read_saved(path: Path, kind: type[Recipe]) -> Saved:
    """Read and check the description of a run in its state file.

    Args:
        path: of the state file.
        kind: class of the system's recipes.
    Raises:
        CheckpointError: the file is damaged.
        TrainingError: the file is no state of this system, or its progress or recipe is impossible.
    """
    header = read_header(path)
    if header.system != kind.system or not {"progress", "recipe"} <= header.details.keys():
        raise TrainingError(f"{path} is not the state of a {kind.system} training run; name the folder of one")
    try:
        progress = _Written.model_validate(header.details["progress"])
        recipe = kind.model_validate(header.details["recipe"])
    except ValidationError as error:
        raise TrainingError(f"{path} is no sound state: {broken_rule(error)}; {_ADVICE}") from error
    except ConfigError as error:
        raise TrainingError(f"{path} is no sound state: {error}; {_ADVICE}") from error
    return Saved(header, Progress(**progress.model_dump()), recipe)


def load_state(path: Path, training: Training) -> Progress:
    """Check everything in a saved state, then bring networks, optimisers and random numbers to it.

    Raises:
        CheckpointError: the file is damaged.
        TrainingError: the file belongs to another recipe, or holds values that no training of this recipe reaches.
    """
    saved = read_saved(path, type(training.recipe))
    _check_tensors(saved.header, training, optimisers=True)
    tensors = read_tensors(saved.header)
    _check_values(path, tensors)
    random = training.random.get_state()
    try:
        training.random.set_state(tensors["random"].clone())
    except RuntimeError as error:
        training.random.set_state(random)
        raise TrainingError(f"{path} holds no state of random numbers; {_ADVICE}") from error
    _load_modules(tensors, training)
    for name, optimiser in training.optimisers.items():
        state = optimiser.state_dict()
        state["state"] = _moments(tensors, f"optimiser.{name}.")
        optimiser.load_state_dict(state)
    for name, number in training.numbers().items():
        number.copy_(tensors[f"number.{name}"])
    return saved.progress


def load_networks(path: Path, training: Training) -> None:
    """Start from the networks of another run, with fresh optimisers (beyond-boundary post-training).

    Raises:
        CheckpointError: the file is damaged.
        TrainingError: the file holds other networks, or values that are not finite.
    """
    header = read_header(path)
    _check_tensors(header, training, optimisers=False)
    tensors = read_tensors(header)
    _check_values(path, tensors)
    _load_modules(tensors, training)


def pictures_of(header: Header) -> dict[str, list[int]]:
    """Return the marks of the pictures that a run was learning from, by part."""
    tensors = read_tensors(header)
    return {
        name.removeprefix(_PICTURES): [int(mark) for mark in tensor.flatten()]
        for name, tensor in tensors.items()
        if name.startswith(_PICTURES) and tensor.dtype == torch.int64
    }


def _named(training: Training) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor of a training, with its name in the state file."""
    yield "random", training.random.get_state()
    for name, number in training.numbers().items():
        yield f"number.{name}", number
    yield from _networks(training)
    for name, optimiser in training.optimisers.items():
        for index, moments in optimiser.state_dict()["state"].items():
            for key, moment in moments.items():
                yield f"optimiser.{name}.{index}.{key}", moment


def _networks(training: Training) -> Iterator[tuple[str, Tensor]]:
    for name, module in training.modules().items():
        for key, value in module.state_dict().items():
            yield f"{name}.{key}", value


def _check_tensors(header: Header, training: Training, optimisers: bool) -> None:
    """Refuse, before a tensor is read, a file whose tensors differ from a training's in name, shape or dtype."""
    path, found = header.path, header.tensors
    for name, tensor in _networks(training):
        part = name.split(".", 1)[0]
        if name not in found or found[name] != TensorInfo(tensor.dtype, tuple(tensor.shape)):
            raise TrainingError(f"{path} was written by another recipe: its {part} does not fit; use the same settings")
    if not optimisers:
        return
    expected = {"random": training.random.get_state()}
    expected |= {f"number.{name}": number for name, number in training.numbers().items()}
    allowed = {name for name, _ in _networks(training)} | expected.keys()
    for prefix, parameters in _parameters(training):
        for index, parameter in enumerate(parameters):
            moments = {f"{prefix}{index}.{key}": parameter for key in _MOMENTS}
            allowed |= moments.keys()
            if moments.keys() & found.keys():
                expected |= moments | {f"{prefix}{index}.step": torch.zeros(())}
    for name, tensor in expected.items():
        wanted = TensorInfo(tensor.dtype, tuple(tensor.shape))
        if found.get(name) != wanted:
            has = f"is {found[name].dtype} {list(found[name].shape)}" if name in found else "is missing"
            raise TrainingError(
                f"{path} is no sound state of a run on {training.device.type}: {name} {has}, and {wanted.dtype} "
                f"{list(wanted.shape)} is needed; resume on the device that the run began on, or {_ADVICE}"
            )
    own = tuple(f"optimiser.{name}." for name in training.optimisers)
    for name in found:
        # An optimiser may be gone, because settings may have changed.
        ignored = name.startswith(_PICTURES) or (name.startswith("optimiser.") and not name.startswith(own))
        if name not in allowed and not ignored:
            raise TrainingError(f"{path} is no sound state: nothing in this run is called {shown(name)}; {_ADVICE}")


def _parameters(training: Training) -> Iterator[tuple[str, list[Tensor]]]:
    """Yield the prefix of each optimiser's moments, with its parameters in the order of their indices."""
    for name, optimiser in training.optimisers.items():
        yield f"optimiser.{name}.", [parameter for group in optimiser.param_groups for parameter in group["params"]]


def _check_values(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse values that no run reaches, because the next step would fail on them."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise TrainingError(f"{path} is no sound state: {name} is not finite; {_ADVICE}")
        least = {"step": 1, "exp_avg_sq": 0}.get(name.rsplit(".", 1)[-1]) if name.startswith("optimiser.") else None
        if name.startswith("number."):
            least = 0
        if least is not None and tensor.numel() and float(tensor.min()) < least:
            raise TrainingError(f"{path} is no sound state: {name} is below {least}; {_ADVICE}")


def _load_modules(tensors: Mapping[str, Tensor], training: Training) -> None:
    for name, module in training.modules().items():
        prefix = f"{name}."
        module.load_state_dict({key.removeprefix(prefix): tensors[key] for key in tensors if key.startswith(prefix)})


def _moments(tensors: Mapping[str, Tensor], prefix: str) -> dict[int, dict[str, Tensor]]:
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(prefix):
            index, field = key.removeprefix(prefix).split(".", 1)
            moments.setdefault(int(index), {})[field] = value.clone()
    return moments
