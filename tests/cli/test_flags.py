"""Declared fields as options, by declarations of the test's own."""

from typing import Any

import pytest
import typer
from pydantic import Field

from zellige.cli.flags import given_options, with_options
from zellige.engine.systems.system import Options, System, Task
from zellige.errors import TaskError


class Colours(Options):
    hue: int = Field(ge=0, le=359, description="Angle of the colour.")
    pale: bool = Field(False, description="Less of it.")
    note: str | None = Field(None, max_length=3, description="Anything [in brackets].")


class Sizes(Options):
    hue: int | None = Field(None, ge=0, description="Colour, if any.")
    wide_side: float = Field(1.5, description="In metres.")


def system(title: str, options: type[Options]) -> tuple[System, Task]:
    task = Task("paint", "Paints.", options=options)
    return System(name=title.lower(), title=title, tasks=(task,), graphs=(), measured=""), task


FIRST, SECOND = system("First", Colours), system("Second", Sizes)


class Painter:
    """The verb of a task, and what its model is given."""

    def __init__(self, *offers: tuple[System, Task], model: tuple[System, Task]) -> None:
        self.found: dict[str, Any] | None = None

        def paint(context: typer.Context, name: str, **values: Any) -> None:
            self.found = given_options(context, model[1], values, name).model_dump(exclude_unset=True)

        app = typer.Typer(add_completion=False)
        app.command()(with_options(paint, offers))
        app.command()(lambda: None)
        self.command: Any = typer.main.get_command(app)

    def __call__(self, *words: object) -> dict[str, Any] | None:
        with self.command.make_context("zellige", ["paint", *map(str, words)]) as context:
            self.command.invoke(context)
        return self.found

    def options(self) -> dict[str, Any]:
        return {param.name: param for param in self.command.commands["paint"].params}


def test_fields_are_typed_options() -> None:
    paint = Painter(FIRST, model=FIRST)
    assert paint("m", "--hue", 7, "--pale", "--note", "x") == {"hue": 7, "pale": True, "note": "x"}


def test_a_field_that_is_left_out_counts_as_unset() -> None:
    assert Painter(FIRST, model=FIRST)("m", "--hue", 7) == {"hue": 7}
    assert Painter(SECOND, model=SECOND)("m") == {}


def test_names_are_written_with_dashes() -> None:
    assert Painter(SECOND, model=SECOND)("m", "--wide-side", 2.5) == {"wide_side": 2.5}


def test_the_help_has_description_and_bounds() -> None:
    options = Painter(FIRST, model=FIRST).options()
    assert options["hue"].help == "Angle of the colour. From 0 to 359."
    assert options["note"].help == r"Anything \[in brackets]."
    assert options["hue"].required and not options["note"].required


def test_two_systems_share_a_verb_with_the_options_of_both() -> None:
    paint = Painter(FIRST, SECOND, model=SECOND)
    options = paint.options()
    assert {"hue", "pale", "note", "wide_side"} <= options.keys()
    assert options["wide_side"].help == "Second: In metres."
    assert options["hue"].help == "First: Angle of the colour. From 0 to 359. Second: Colour, if any. 0 or more."
    assert paint("m", "--hue", 400) == {"hue": 400}


REFUSED = {
    "an option of another system": (
        (FIRST, SECOND), SECOND, ("--pale",), "paint of m has no option --pale; it has --hue, --wide-side"),
    "missing in this system": ((FIRST, SECOND), FIRST, (), "paint needs --hue: Angle of the colour."),
    "below": ((FIRST,), FIRST, ("--hue", -1), "--hue must be from 0 to 359, not -1"),
    "above": ((FIRST,), FIRST, ("--hue", 360), "--hue must be from 0 to 359, not 360"),
    "another rule": (
        (FIRST,), FIRST, ("--hue", 1, "--note", "long"), "--note cannot be 'long': string should have at most 3"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_option_is_refused_in_a_sentence(case: str) -> None:
    offers, model, words, sentence = REFUSED[case]
    with pytest.raises(TaskError) as refusal:
        Painter(*offers, model=model)("m", *words)
    assert str(refusal.value).startswith(sentence)


def test_a_default_that_is_given_counts_as_given() -> None:
    with pytest.raises(TaskError, match="has no option --wide-side"):
        Painter(FIRST, SECOND, model=FIRST)("m", "--hue", 1, "--wide-side", 1.5)
