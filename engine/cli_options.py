"""Options that several verbs of the command share, and how verbs report."""

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

__all__ = ["Device", "Json", "Model", "Precision", "Seed", "report"]

Model = Annotated[str, typer.Argument(help="A bundled model's name, or the path of a checkpoint.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, everything else on stderr.")]
Seed = Annotated[int, typer.Option(help="0 or more; the same seed gives the same picture.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16, or fp16 (CUDA).")]


def report(values: dict[str, Any], as_json: bool) -> None:
    """Print what a verb found: one JSON object, or a table for people."""
    if as_json:
        print(json.dumps(values))
        return
    table = Table(show_header=False, box=None)
    for key, value in values.items():
        table.add_row(key, f"{value:.4g}" if isinstance(value, float) else _plain(value))
    Console().print(table)


def _plain(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list) else str(value)
