"""Recipes and evaluations of all systems: this folder has a folder for each row of the engine's table."""

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zellige.errors import TaskError, UnknownRecipeError

from ...engine.systems import all_systems, system_of
from ...engine.systems.system import System
from ..data.sources import located
from ..evaluate import as_json, measured, trained_on
from ..recipe import Recipe

__all__ = ["RECIPES", "evaluate", "evaluate_file", "find_recipe", "held_out_images"]


def _part(system: System, name: str) -> ModuleType:
    return import_module(f".{system.folder}.{name}", __package__)


# Recipes of the bundled models, and of the published ones.
RECIPES: dict[str, Recipe] = {
    name: recipe for system in all_systems() for name, recipe in _part(system, "recipes").RECIPES.items()
}


def find_recipe(name: str) -> Recipe:
    """Return the recipe of this name.

    Raises:
        UnknownRecipeError: there is none; the error lists all recipes.
    """
    if name not in RECIPES:
        raise UnknownRecipeError(f"there is no recipe {name!r}; recipes: {', '.join(sorted(RECIPES))}")
    return RECIPES[name]


def evaluate(model: Any, data: str | None = None, count: int | None = None, seed: int = 0) -> dict[str, Any]:
    """Compare a model's images with held-out data, in the metrics of its system.

    Args:
        model: a loaded model that has its weights.
        data: data set or folder; None takes the one that the model was trained on.
        count: number of pictures and of images, 2 or more; None takes the system's own number.
        seed: of pictures and images, 0 or more.
    Returns:
        the metrics of the system, with `data`, `count`, `seconds`, `device`, `precision` and `seed`. All are JSON: an
        infinite ratio is None, and `missing` says so.
    Raises:
        DataError: a number is out of its bounds, or the data cannot be read.
    """
    part = _part(system_of(model.system), "evaluate")
    return measured(model, part.evaluate, data, part.COUNT if count is None else count, seed)


def evaluate_file(model: Any, path: Path, data: str | None = None) -> dict[str, Any]:
    """Measure a picture that a model rendered to a file.

    Args:
        model: the model that rendered it.
        path: a .tif or .png file.
        data: data set or folder to compare with; None takes the one that the model was trained on.
    Returns:
        the metrics of the system, and `image`, `width`, `height`.
    Raises:
        TaskError: the system measures no files; the error names the systems that do.
        DataError: the file or the data cannot be read.
    """
    system = system_of(model.system)
    if not hasattr(_part(system, "evaluate"), "evaluate_file"):
        able = [other.title for other in all_systems() if hasattr(_part(other, "evaluate"), "evaluate_file")]
        raise TaskError(
            f"{model.name} is a {system.title}, which measures no picture from a file; {', '.join(able)} does; "
            "evaluate it without an image"
        )
    report: dict[str, Any] = _part(system, "evaluate").evaluate_file(model, path, located(data or trained_on(model)))
    return as_json(report)


def held_out_images(model: Any, count: int) -> NDArray[np.uint8]:
    """Return pictures of a model's training data, from the part that training never sees.

    Args:
        model: a loaded model that has its weights.
        count: number of pictures.
    Returns:
        uint8 [count, H, W, 3], of the model's size.
    Raises:
        DataError: the model does not say what it was trained on, or the data cannot be read.
    """
    part = _part(system_of(model.system), "evaluate")
    images: NDArray[np.uint8] = part.held_out_images(model, located(trained_on(model)), count)
    return images
