"""What a training run is: networks, data, losses, schedule; every field is a line of the paper's table or ours."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor
from torch.utils.data import Dataset

from zellige.errors import UnknownRecipeError

__all__ = ["Recipe", "with_settings"]

RecipeT = TypeVar("RecipeT", bound="Recipe")


class Recipe(BaseModel, ABC):
    """What the recipes of all systems have, and what the command and the loop ask of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    system: ClassVar[str]
    remedy: ClassVar[str]  # against values that are not finite

    description: str = Field("", description="What the model makes, for people who list models.")
    data: str = Field("earth", description="Data set name or folder, unless --data names another.")
    batch: int = Field(16, ge=1, description="Samples a step.")
    steps: int = Field(1_000_000, ge=1, description="Length of the run: one critic and one generator step each.")
    decay_from: float = Field(
        1.0, gt=0, le=1, description="Share of the run after which learning rates fall linearly to 0."
    )
    ema: float = Field(0.999, ge=0, lt=1, description="Decay of the averaged networks.")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="Autocast precision of the networks.")
    storage: Literal["fp32", "fp16"] = Field("fp32", description="Precision of matrices and kernels in the model file.")

    log_every: int = Field(50, ge=1, description="Steps between log lines.")
    checkpoint_every: int = Field(500, ge=1, description="Steps between checkpoints; a crash loses at most these.")
    sample_every: int = Field(1000, ge=1, description="Steps between sample sheets.")

    @abstractmethod
    def open_data(self, seed: int) -> Any:
        """The data set or folder that the run learns from, of the model's resolution."""

    @abstractmethod
    def items(self, data: Any, seed: int) -> Dataset[tuple[Tensor, Tensor]]:
        """What an item of a batch is: the pair of tensors that the system's step takes, a function of seed and item."""


def with_settings(recipe: RecipeT, settings: dict[str, Any]) -> RecipeT:
    """A copy of a recipe with dotted settings replaced, such as {"model.width": 32, "steps": 1000}.

    Raises:
        UnknownRecipeError: a setting that does not exist or a value that it does not take.
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
            raise UnknownRecipeError(f"the recipe has no setting {key!r}; it has {known}")
        level[last] = value
    try:
        return type(recipe).model_validate(values)
    except ValidationError as error:
        fault = error.errors()[0]
        where, given = ".".join(str(part) for part in fault["loc"]), fault["input"]
        reason = fault["msg"].removeprefix("Value error, ")
        # A rule about several settings is broken by all of them together, and its own sentence names them.
        alone = not isinstance(given, dict | BaseModel)
        raise UnknownRecipeError(f"the setting {where} cannot be {given!r}: {reason}" if alone else reason) from error
