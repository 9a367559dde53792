"""The verb `zellige export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zellige.errors import SizeError, TaskError

from ..engine.systems import all_systems
from .flags import number, refuse_unused
from .options import Json, Model, Overwrite
from .printing import report
from .results import refuse_existing, refuse_same

if TYPE_CHECKING:
    from ..export.tensorrt import Profile

__all__ = ["export"]

MOST_BATCH = 65536
# For each format, the options that it does not use.
UNUSED = {
    "onnx": ("target", "profile", "max_batch", "instances", "serve_on"),
    "tensorrt": ("max_batch", "instances", "serve_on"),
    "triton-repository": ("target", "profile", "overwrite"),
}
GRAPHS = " ".join(f"{system.title}: {', '.join(system.graphs)}." for system in all_systems())


def export(
    context: typer.Context,
    model: Model,
    out: Annotated[Path, typer.Option(help="The file, or the folder of a repository.")],
    to: Annotated[str, typer.Option(help=f"{', '.join(UNUSED)}.")] = "onnx",
    task: Annotated[str, typer.Option(help=GRAPHS)] = "generate",
    flavour: Annotated[
        str | None,
        typer.Option(
            help="onnx: portable (standard operators alone) or fused (our kernels as nodes). tensorrt: rtx or full; "
            "default the one installed. triton-repository: portable (ONNX) or full (a TensorRT engine)."
        ),
    ] = None,
    precision: Annotated[str, typer.Option(help="fp32, fp16 or bf16; inputs and outputs are the same.")] = "fp32",
    output: Annotated[str, typer.Option(help="image: bytes [N, H, W, 3]; float: float32 [N, 3, H, W].")] = "image",
    target: Annotated[str, typer.Option(help="tensorrt, rtx: GPUs to build for, such as sm_86,sm_89,sm_120.")] = "",
    profile: Annotated[
        list[str] | None, typer.Option(help="tensorrt: least, usual and largest batch; may be repeated.")
    ] = None,
    max_batch: Annotated[int, number("triton-repository: most images in a batch.", least=1, most=MOST_BATCH)] = 32,
    instances: Annotated[
        int, number("triton-repository: copies of the model that run at a time.", least=1, most=1024)
    ] = 1,
    serve_on: Annotated[str, typer.Option(help="triton-repository: cpu or gpu.")] = "gpu",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Export a task of a model. The file is compared with PyTorch, and kept only if it computes the same."""
    from ..engine.library import find

    if to not in UNUSED:
        *most, last = UNUSED
        raise TaskError(f"there is no export to {to!r}; use {', '.join(most)} or {last}")
    refuse_unused(context, f"--to {to}", UNUSED[to])
    if to != "triton-repository":  # a repository is checked later, by an error that names the model in it
        beside = out.with_name(f"{out.name}.data")  # external data, for weights that are too large for the file
        refuse_same({"--out": [out, beside]}, {"the model": [find(model)]})
        refuse_existing([out], overwrite)
    chosen: dict[str, Any] = {"task": task, "precision": precision, "output": output}
    if to == "onnx":
        from ..export.onnx import export_onnx

        return _show(export_onnx(model, out, flavour=flavour or "portable", **chosen), as_json)  # type: ignore[arg-type]
    if to == "tensorrt":
        from ..engine.runtimes.buckets import BUCKETS
        from ..export.formats import export_engine

        targets = [name for name in target.split(",") if name]
        profiles = [_profile(text) for text in profile or ()] or [BUCKETS]
        found = export_engine(model, out, flavour=flavour, targets=targets, profiles=profiles, **chosen)  # type: ignore[arg-type]
        return _show(found, as_json)
    from ..export.formats import export_repository

    chosen |= {"max_batch": max_batch, "instances": instances, "device": serve_on}
    _show(export_repository(model, out, flavour=flavour or "portable", **chosen), as_json)  # type: ignore[arg-type]


def _profile(text: str) -> "Profile":
    try:
        least, usual, largest = map(int, text.split(","))
    except ValueError:
        raise SizeError(f"{text!r} is no profile; write the least, usual and largest batch, such as 1,8,32") from None
    if largest > MOST_BATCH:
        raise SizeError(f"the profile {text} is for {largest} rows; give {MOST_BATCH} or fewer")
    return least, usual, largest


def _show(found: dict[str, Any], as_json: bool) -> None:
    """Report the export. For people inputs and outputs take a line each, and long lists are left out."""
    if not as_json:
        found = {key: value for key, value in found.items() if key not in ("config", "metadata")}
        for key in ("inputs", "outputs"):
            found[key] = ", ".join(
                f"{value['name']} {value['dtype']} [{', '.join(map(str, value['shape']))}]" for value in found[key]
            )
    report(found, as_json)
