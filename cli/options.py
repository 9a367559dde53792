"""Options that several verbs of the command share."""

from pathlib import Path
from typing import Annotated

import typer

from zellige.errors import SizeError

from .flags import number

__all__ = [
    "MOST_SEED",
    "Device",
    "Json",
    "Memory",
    "Model",
    "OutFolder",
    "Overwrite",
    "Precision",
    "Runtime",
    "Seed",
    "Size",
    "parse_region",
    "parse_size",
]

MOST_SEED = 2**63 - 1  # the largest seed that torch takes

Model = Annotated[str, typer.Argument(help="A bundled model's name, or the path of a checkpoint or exported file.")]
OutFolder = Annotated[Path, typer.Option(help="Folder for the PNG files; made when missing.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist; otherwise they are refused.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, everything else on stderr.")]
Seed = Annotated[int, number("The same seed gives the same picture.", least=0, most=MOST_SEED)]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16, or fp16 (CUDA).")]
Runtime = Annotated[str, typer.Option(help="auto (torch; for .onnx files onnx), torch, onnx, or on CUDA tensorrt.")]
Memory = Annotated[str | None, typer.Option(help="Memory budget, such as 512MiB; default half of what is free.")]
Size = Annotated[str | None, typer.Option(help="WIDTHxHEIGHT in pixels; 16384x takes the model's own height.")]


def parse_region(text: str) -> tuple[int, int, int, int]:
    """Return x, y, width and height of X,Y,WIDTH,HEIGHT."""
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise SizeError(f"{text!r} is no region; write X,Y,WIDTH,HEIGHT in pixels, such as 1024,0,512,128") from None
    return x, y, width, height


def parse_size(text: str | None) -> tuple[int | None, int | None]:
    """Return width and height of WIDTHxHEIGHT; a side that is left out or called native is None, the model's own."""
    if text is None:
        return None, None
    sides = text.lower().split("x")
    try:
        width, height = (None if side in ("", "native") else int(side) for side in sides)
    except ValueError:
        raise SizeError(
            f"{text!r} is no size; write WIDTHxHEIGHT such as 16384x128, or 16384x for the model's height"
        ) from None
    return width, height
