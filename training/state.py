"""Saving a training run so that it goes on bit for bit: networks, optimisers, random numbers; no pickle."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zellige.errors import TrainingError

from ..engine.checkpoint.file import read_header, read_tensors, write_checkpoint
from .recipe import Training

__all__ = ["Progress", "load_networks", "load_state", "save_state"]


@dataclass(frozen=True)
class Progress:
    """How far a run has come: finished steps, times it was set back by a NaN, the seed it started from."""

    step: int = 0
    recoveries: int = 0
    seed: int = 0


def save_state(path: Path, training: Training, progress: Progress, recipe: Mapping[str, Any]) -> None:
    """Write everything that the next step depends on, atomically.

    Raises:
        TrainingError: a network or an optimiser holds a value that is not finite; a good state is never
            replaced by a bad one.
        OutputError: the file cannot be written.
    """
    tensors: dict[str, Tensor] = {"random": training.random.get_state(), **_prefixed("number", training.numbers())}
    for name, module in training.modules().items():
        tensors |= _prefixed(name, module.state_dict())
    for name, optimiser in training.optimisers.items():
        for index, moments in optimiser.state_dict()["state"].items():
            tensors |= _prefixed(f"optimiser.{name}.{index}", moments)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise TrainingError(f"{name} is not finite at step {progress.step}; the state is not saved")
    details = {"progress": asdict(progress), "recipe": dict(recipe)}
    write_checkpoint(path, tensors, system=training.system, config={}, details=details)


def load_state(path: Path, training: Training) -> Progress:
    """Bring networks, optimisers and random numbers to a saved state.

    Raises:
        CheckpointError: the file is damaged.
        TrainingError: it belongs to another recipe.
    """
    header = read_header(path)
    tensors = read_tensors(header)
    if header.system != training.system or "progress" not in header.details:
        raise TrainingError(f"{path} is not the state of a {training.system} training run; name the folder of one")
    _load_modules(path, tensors, training)
    for name, optimiser in training.optimisers.items():
        state = optimiser.state_dict()
        state["state"] = _moments(tensors, f"optimiser.{name}.")
        optimiser.load_state_dict(state)
    try:
        for name, number in training.numbers().items():
            number.copy_(tensors[f"number.{name}"])
        training.random.set_state(tensors["random"].clone())
        return Progress(**header.details["progress"])
    except (KeyError, TypeError) as error:
        raise TrainingError(f"{path} is not a whole state: {error}; start the run anew") from error


def load_networks(path: Path, training: Training) -> None:
    """Start from the networks of another run, with fresh optimisers (beyond-boundary post-training)."""
    _load_modules(path, read_tensors(read_header(path)), training)


def _load_modules(path: Path, tensors: Mapping[str, Tensor], training: Training) -> None:
    for name, module in training.modules().items():
        own = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        try:
            module.load_state_dict(own)
        except RuntimeError as error:
            raise TrainingError(
                f"{path} was written by another recipe: its {name} does not fit; use the same settings"
            ) from error


def _moments(tensors: Mapping[str, Tensor], prefix: str) -> dict[int, dict[str, Tensor]]:
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(prefix):
            index, field = key.removeprefix(prefix).split(".", 1)
            moments.setdefault(int(index), {})[field] = value.clone()
    return moments


def _prefixed(prefix: str, tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    return {f"{prefix}.{key}": value.detach().cpu().contiguous() for key, value in tensors.items()}
