"""Recipes by name: the models in the box, and the published ones."""

from zellige.errors import UnknownRecipeError

from ..recipe import CocoGanRecipe
from .coco_gan import RECIPES

__all__ = ["RECIPES", "find_recipe"]


def find_recipe(name: str) -> CocoGanRecipe:
    """The recipe of a name.

    Raises:
        UnknownRecipeError: there is none; lists all.
    """
    if name not in RECIPES:
        raise UnknownRecipeError(f"there is no recipe {name!r}; recipes: {', '.join(sorted(RECIPES))}")
    return RECIPES[name]
