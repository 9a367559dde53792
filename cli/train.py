"""The verb `zellige train`."""

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from zellige.errors import OutputError, UnknownRecipeError

from .flags import number, refuse_unused
from .options import Device, Json, Seed
from .printing import report
from .results import refuse_same

__all__ = ["Data", "train"]

Data = Annotated[
    str | None,
    typer.Option(
        help="earth, earth-land, emoji, emoji-all, emoji-faces, emoji-unseen, or a folder; default the recipe's."
    ),
]


def train(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="A recipe's name; an unknown one lists them all.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    data: Data = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, such as model.width=32.")] = None,
    steps: Annotated[int | None, number("Length of the run; default the recipe's.", least=1, most=10**12)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    start_from: Annotated[
        Path | None, typer.Option("--from", help="Another run's folder whose networks to start with.")
    ] = None,
    seed: Seed = 0,
    workers: Annotated[int, number("Processes that load data.", least=0, most=256)] = 1,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Train a model by a recipe."""
    from ..engine.device import pick_device
    from ..training.loop import train as run
    from ..training.recipe import with_settings
    from ..training.systems import find_recipe

    if resume:
        refuse_unused(context, "--resume", ("start_from",))
    chosen = find_recipe(recipe)
    chosen = with_settings(chosen, _settings(settings or [], steps, data))
    _refuse_data_folder(out, chosen.data)
    if start_from is not None:
        refuse_same({"--out": [out]}, {"--from": [start_from]})
    source = chosen.open_data(seed)
    details = {
        "recipe": recipe,
        "description": chosen.description,
        "data": chosen.data,
        "licence": source.licence,
        "command": shlex.join(["zellige", *sys.argv[1:]]),
    }
    found = run(
        chosen, source, out, resume=resume, start_from=start_from, seed=seed, device=pick_device(device),
        workers=workers, details=details,
    )  # fmt: skip
    report({"recipe": recipe, "data": chosen.data} | found, as_json)


def _settings(texts: Sequence[str], steps: int | None, data: str | None) -> dict[str, Any]:
    pairs = [_setting(text) for text in texts]
    pairs += [(key, value) for key, value in (("steps", steps), ("data", data)) if value]
    values = dict(pairs)
    for key in values:
        if sum(key == other for other, _ in pairs) > 1:
            raise UnknownRecipeError(f"the setting {key} is given more than once; give it once")
    return values


def _setting(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not separator:
        raise UnknownRecipeError(f"{text!r} is no setting; write --set KEY=VALUE, such as --set model.width=32")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
    except RecursionError:
        raise UnknownRecipeError(f"the value of {key} is nested too deeply; write a number, a text or a list") from None


def _refuse_data_folder(out: Path, data: str) -> None:
    """Refuse a run's folder inside its data, because the run would learn from its own samples when it is resumed."""
    folder = Path(data)
    if folder.is_dir() and out.resolve().is_relative_to(folder.resolve()):
        raise OutputError(
            f"--out {out} lies in the data {folder}, whose pictures its samples would join; choose another"
        )
