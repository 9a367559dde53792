"""Options that several verbs of the command share, and how verbs report."""

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from zellige.errors import SizeError

__all__ = ["Device", "Json", "Memory", "Model", "Precision", "Runtime", "Seed", "Size", "parse_size", "report"]

Model = Annotated[str, typer.Argument(help="A bundled model's name, or the path of a checkpoint or exported file.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, everything else on stderr.")]
Seed = Annotated[int, typer.Option(help="0 or more; the same seed gives the same picture.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16, or fp16 (CUDA).")]
Runtime = Annotated[str, typer.Option(help="auto (torch, of .onnx files onnx), torch, onnx, or on CUDA tensorrt.")]
Memory = Annotated[str | None, typer.Option(help="Memory budget, such as 512MiB; default half of what is free.")]
Size = Annotated[str | None, typer.Option(help="WIDTHxHEIGHT in pixels; 16384x takes the model's own height.")]


def report(values: dict[str, Any], as_json: bool) -> None:
    """Print what a verb found: one JSON object, or a table for people, with lists of rows as tables of their own."""
    if as_json:
        print(json.dumps(values))
        return
    table = Table(show_header=False, box=None)
    tables = [table]
    for key, value in values.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            tables.append(_table_of(key, value))
        else:
            table.add_row(key, _plain(value))
    Console().print(*tables, sep="\n")


def _table_of(title: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(*rows[0], title=title, title_justify="left", box=None)
    for row in rows:
        table.add_row(*("" if value is None else _plain(value) for value in row.values()))
    return table


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def parse_size(text: str | None) -> tuple[int | None, int | None]:
    """Width and height of WIDTHxHEIGHT; a side that is left out, or called native, is the model's."""
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
