"""Recipes by name: the models in the box, and the published ones."""

from zellige.errors import UnknownRecipeError

from ..recipe import Recipe
from ..systems.coco_gan import recipes as coco_gan
from ..systems.onegan import recipes as onegan

__all__ = ["RECIPES", "find_recipe"]

RECIPES: dict[str, Recipe] = {**coco_gan.RECIPES, **onegan.RECIPES}


def find_recipe(name: str) -> Recipe:
    """The recipe of a name.

    Raises:
        UnknownRecipeError: there is none; lists all.
    """
    if name not in RECIPES:
        raise UnknownRecipeError(f"there is no recipe {name!r}; recipes: {', '.join(sorted(RECIPES))}")
    return RECIPES[name]
