"""The verb `zellige export`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from zellige.errors import TaskError

from .cli_options import Json, Model, report

__all__ = ["export"]

FORMATS = ("onnx",)


def export(
    model: Model,
    out: Annotated[Path, typer.Option(help="The file; an existing one is replaced.")],
    to: Annotated[str, typer.Option(help="onnx.")] = "onnx",
    task: Annotated[
        str,
        typer.Option(
            help="COCO-GAN: generate or patches. OneGAN: generate, like, reconstruct, segment, cluster, translate, "
            "inpaint or recompose."
        ),
    ] = "generate",
    flavour: Annotated[
        str,
        typer.Option(help="portable: standard operators alone; fused: our kernels as nodes, with functions for each."),
    ] = "portable",
    precision: Annotated[str, typer.Option(help="fp32, fp16 or bf16; inputs and outputs are the same.")] = "fp32",
    output: Annotated[str, typer.Option(help="image: bytes [N, H, W, 3]; float: float32 [N, 3, H, W].")] = "image",
    as_json: Json = False,
) -> None:
    """Export a task of a model, checked against PyTorch in ONNX Runtime; a file that is not equal is not kept."""
    if to not in FORMATS:
        raise TaskError(f"there is no export to {to!r}; use {' or '.join(FORMATS)}")
    from ..export.onnx import export_onnx

    found = export_onnx(model, out, task=task, flavour=flavour, precision=precision, output=output)  # type: ignore[arg-type]
    _show(found, as_json)


def _show(found: dict[str, Any], as_json: bool) -> None:
    """For people the inputs and outputs of a graph on a line each."""
    if not as_json:
        for key in ("inputs", "outputs"):
            found[key] = ", ".join(
                f"{value['name']} {value['dtype']} [{', '.join(map(str, value['shape']))}]" for value in found[key]
            )
    report(found, as_json)
