"""Training goes by the table of systems, and what is shared knows no system."""

from pathlib import Path
from types import SimpleNamespace

import pytest

import zellige.training
from zellige.engine.systems import all_systems
from zellige.errors import TaskError
from zellige.training import systems
from zellige.training.systems import RECIPES, evaluate_file

SHARED = Path(zellige.training.__file__).parent


def test_every_system_has_recipes_of_its_own() -> None:
    assert {recipe.system for recipe in RECIPES.values()} == {system.name for system in all_systems()}


@pytest.mark.parametrize("system", all_systems(), ids=lambda system: system.name)
def test_every_system_has_an_evaluation(system) -> None:
    part = systems._part(system, "evaluate")
    assert callable(part.evaluate) and part.COUNT >= 2


def test_no_shared_file_names_a_system() -> None:
    names = {name.casefold() for system in all_systems() for name in (system.name, system.title, system.folder)}
    own = [SHARED / "systems" / system.folder for system in all_systems()]
    for path in SHARED.rglob("*.py"):
        if not any(folder in path.parents for folder in own):
            text = path.read_text().casefold()
            assert not [name for name in names if name in text], path


def test_a_system_that_measures_no_files_names_those_that_do() -> None:
    model = SimpleNamespace(name="emoji", system="onegan")
    with pytest.raises(TaskError, match="emoji is a OneGAN, which measures no picture from a file; COCO-GAN does"):
        evaluate_file(model, Path("a.tif"))
