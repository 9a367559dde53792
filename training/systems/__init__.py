"""Recipes by name: the models in the box, and the published ones."""

from pathlib import Path
from typing import Any

from zellige.errors import TaskError, UnknownRecipeError

from ..recipe import Recipe
from ..systems.coco_gan import recipes as coco_gan
from ..systems.onegan import recipes as onegan

__all__ = ["RECIPES", "evaluate", "evaluate_file", "find_recipe"]

RECIPES: dict[str, Recipe] = {**coco_gan.RECIPES, **onegan.RECIPES}


def find_recipe(name: str) -> Recipe:
    """The recipe of a name.

    Raises:
        UnknownRecipeError: there is none; lists all.
    """
    if name not in RECIPES:
        raise UnknownRecipeError(f"there is no recipe {name!r}; recipes: {', '.join(sorted(RECIPES))}")
    return RECIPES[name]


def evaluate(model: Any, data: str | None, count: int | None, seed: int) -> dict[str, Any]:
    """Stands in."""
    from .coco_gan.evaluate import evaluate_images
    from .onegan.evaluate import evaluate_scenes

    number = {} if count is None else {"count": count}
    measure: Any = {"coco-gan": evaluate_images, "onegan": evaluate_scenes}[model.system]
    return measure(model, data, seed=seed, **number)


def evaluate_file(model: Any, file: Path, data: str | None) -> dict[str, Any]:
    """Stands in."""
    from .coco_gan.evaluate import evaluate_panorama

    if model.system != "coco-gan":
        raise TaskError(f"{model.name} is a {model.system} model, whose files have no seams to measure")
    return evaluate_panorama(model, file, data)
