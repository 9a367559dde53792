"""The verb `zellige convert`."""

from pathlib import Path
from typing import Annotated

import typer

from .flags import number
from .options import MOST_SEED, Json, Overwrite
from .printing import report
from .results import refuse_existing, refuse_same

__all__ = ["convert"]


def convert(
    file: Annotated[Path, typer.Argument(help="Weights: a torch file, a pickle or a safetensors file.")],
    out: Annotated[Path, typer.Option(help="The model file, which ends in .safetensors.")],
    licence: Annotated[str, typer.Option(help="Licence of the weights, for the model file.")] = "unknown",
    seed: Annotated[
        int, number("Seed of noise and latents, if the file lacks noise or the mean.", least=0, most=MOST_SEED)
    ] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Turn weights that another program wrote into a model, without running what their file carries."""
    refuse_same({"--out": [out]}, {"the file": [file]})
    refuse_existing([out], overwrite)
    from ..engine.systems.conversion import convert_file

    report(convert_file(file, out, licence=licence, seed=seed), as_json)
