"""The recipe of a run: networks, data, losses, schedule; every field is a line of the paper's table or ours."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, Protocol, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn
from torch.utils.data import Dataset

from zellige.errors import UnknownRecipeError

from ..engine.files.hostile import shown
from .data.sources import located

__all__ = ["Betas", "Rate", "Recipe", "Training", "broken_rule", "with_settings"]

RecipeT = TypeVar("RecipeT", bound="Recipe")
Rate = Annotated[float, Field(gt=0, le=1)]  # a learning rate
Beta = Annotated[float, Field(ge=0, lt=1)]
Betas = tuple[Beta, Beta]
Steps = Annotated[int, Field(ge=1, le=10**9)]


class Training(Protocol):
    """The interface of a system's training for the loop and the state file.

    Attributes:
        system: name of the system.
        recipe: recipe of the run.
        device: the device that it runs on.
        optimisers: the optimisers by name.
        random: the source of all random draws of its steps.
    """

    system: str
    recipe: Any
    device: torch.device
    optimisers: dict[str, torch.optim.Adam]
    random: torch.Generator

    def modules(self) -> dict[str, nn.Module]:
        """Return every network by name."""
        ...

    def numbers(self) -> dict[str, Tensor]:
        """Return further tensors that a run must save; none is below 0, and loading updates them in place."""
        ...

    def step(self, batch: tuple[Tensor, ...], progress: float, /) -> dict[str, Tensor]:
        """Take one step on a batch of the recipe's items, at a share of the run, and return scalars to log."""
        ...

    def samples(self) -> Any:
        """Return a sheet of samples, uint8 [H, W, 3]."""
        ...

    def model(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and configuration of the model file."""
        ...


class Recipe(BaseModel, ABC):
    """The fields that the recipes of all systems share, and the methods that the command and the loop call."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    system: ClassVar[str]
    remedy: ClassVar[str]  # advice for a run whose values are not finite

    description: str = Field("", description="What the model makes, for people who list models.")
    data: str = Field("earth", description="Data set name or folder, unless --data names another.")
    batch: int = Field(16, ge=1, le=65_536, description="Samples a step.")
    steps: Steps = Field(1_000_000, description="Length of the run: one critic and one generator step each.")
    decay_from: float = Field(
        1.0, gt=0, le=1, description="Share of the run after which learning rates fall linearly to 0."
    )
    ema: float = Field(0.999, ge=0, lt=1, description="Decay of the averaged networks.")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="Autocast precision of the networks.")
    storage: Literal["fp32", "fp16"] = Field("fp32", description="Precision of matrices and kernels in the model file.")

    log_every: Steps = Field(50, description="Steps between log lines.")
    checkpoint_every: Steps = Field(500, description="Steps between checkpoints; a crash loses at most these.")
    sample_every: Steps = Field(1000, description="Steps between sample sheets.")

    @abstractmethod
    def start(self, device: torch.device, seed: int) -> Training:
        """Make a training before its first step, with weights drawn under a seed of 0 or more."""

    @abstractmethod
    def open_data(self, seed: int) -> Any:
        """Open the data set or folder that the run learns from, at the model's resolution."""

    @abstractmethod
    def items(self, data: Any, seed: int) -> Dataset[tuple[Tensor, ...]]:
        """Return the items of which batches are made: tuples of tensors, which the system's step takes stacked.

        An item is a function of its number and the seed alone, so that a resumed run goes on with the same items.
        """


def with_settings(recipe: RecipeT, settings: dict[str, Any]) -> RecipeT:
    """Return a copy of a recipe with dotted settings replaced, such as {"model.width": 32, "steps": 1000}.

    A folder of data is recorded with its absolute path, so that it can be found from anywhere.

    Raises:
        UnknownRecipeError: a setting does not exist, or does not take the value.
    """
    values = recipe.model_dump()
    for key, value in settings.items():
        *path, last = key.split(".")
        level: Any = values
        for part in path:
            level = level.get(part) if isinstance(level, dict) else None
        if not isinstance(level, dict) or last not in level:
            inner = [f"{part}.{name}" for part, fields in values.items() if isinstance(fields, dict) for name in fields]
            known = ", ".join(sorted(values) + sorted(inner))
            raise UnknownRecipeError(f"the recipe has no setting {shown(key)}; it has {known}")
        level[last] = value
    try:
        made = type(recipe).model_validate(values)
    except ValidationError as error:
        raise UnknownRecipeError(broken_rule(error)) from error
    for key, value in _leaves(made.model_dump()):  # configurations of networks accept infinity and NaN
        if isinstance(value, float) and not math.isfinite(value):
            raise UnknownRecipeError(f"the setting {key} cannot be {value}: only finite numbers are allowed")
    return made.model_copy(update={"data": located(made.data)})


def broken_rule(error: ValidationError) -> str:
    """Say in a sentence which rule the given values break first."""
    fault = error.errors(include_url=False)[0]
    where, given = ".".join(str(part) for part in fault["loc"]), fault["input"]
    reason = fault["msg"].removeprefix("Value error, ")
    if not where and fault["type"] != "value_error":
        return f"{shown(given)} are no settings"
    if fault["type"] == "missing":
        return f"the setting {where} is missing"
    # A rule about several settings has a sentence of its own, which names them.
    if fault["type"] == "value_error" and isinstance(given, dict | BaseModel):
        return reason
    return f"the setting {where} cannot be {shown(given)}: {reason}"


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
