"""The verbs of `zellige bench`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from zellige.errors import SizeError, TaskError

from .options import Device, Json, Memory, Model, Precision, Seed, Size, parse_size, report

__all__ = ["bench"]

bench = typer.Typer(help="Measure, with everything compared in one run.", no_args_is_help=True)


@bench.command("panorama")
def bench_panorama(
    model: Model,
    size: Size = "16384x",
    memory: Memory = "512MiB",
    seed: Seed = 0,
    rounds: Annotated[int, typer.Option(help="Alternating rounds of bare generator and render.")] = 5,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
) -> None:
    """The render to disk against the bare generator at the same batch, in one run."""
    from ..benchmarks.panorama import measure
    from ..engine.library import load_task

    width, height = parse_size(size)
    generator = load_task("panorama", model, device, precision)
    report(measure(generator, width, height, memory, seed, rounds), as_json)


@bench.command("generate")
def bench_generate(
    model: Annotated[
        str, typer.Argument(help="A model's name or path, or onegan-128 or coco-gan-256: random weights.")
    ],
    batch: Annotated[str, typer.Option(help="Images a call, such as 1,8,32.")] = "1,8,32",
    precision: Annotated[str, typer.Option(help="fp32, bf16, or both.")] = "fp32,bf16",
    against: Annotated[
        str, typer.Option(help="Peers: eager, compile, onnxruntime, openvino, tensorrt; one that is missing is named.")
    ] = "eager,compile,onnxruntime,openvino",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, in which all take turns.")] = 7,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the results into this file, anew after each batch.")
    ] = None,
    device: Device = "auto",
) -> None:
    """A generator against its peers: correct first, then how fast. Ctrl-C ends it with what it has."""
    from ..benchmarks.generate.compare import compare
    from ..benchmarks.generate.table import table_of
    from ..engine.device import pick_device
    from ..engine.files.atomic import AtomicFile

    batches, precisions, peers = _counts(batch), _names(precision), _names(against)
    output = None if json_file is None else AtomicFile(json_file)
    report: dict[str, Any] = {}
    try:
        for report in compare(model, batches, precisions, pick_device(device), peers, rounds):
            if output is not None:
                with output as file:
                    file.write(json.dumps(report, indent=1).encode() + b"\n")
    finally:  # what was measured before it was stopped stays true
        if report:
            Console(width=max(Console().width, 140)).print(table_of(report))


@bench.command("kernels")
def bench_kernels(
    names: Annotated[list[str] | None, typer.Argument(help="Kernels; none means all.")] = None,
    against: Annotated[
        str,
        typer.Option(help="Peers: eager, compile, sdpa, liger, onnxruntime, openvino; one that is missing is named."),
    ] = "eager,compile,sdpa,liger,onnxruntime,openvino",
    dtype: Annotated[str, typer.Option(help="Such as float32, or float32,bfloat16.")] = "float32,bfloat16",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the results into this file, anew after each shape.")
    ] = None,
    plot_file: Annotated[
        Path | None, typer.Option("--plot", help="Also draw percent of the limit over shapes into this PNG file.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Kernels against their peers: correct first, then how fast, and of what limit. Ctrl-C ends it with what it has."""
    import torch

    from ..benchmarks.kernels.compare import compare
    from ..benchmarks.kernels.table import table_of
    from ..engine.device import pick_device
    from ..engine.files.atomic import AtomicFile

    known = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    kinds = dtype.split(",")
    if unknown := [name for name in kinds if name not in known]:
        raise TaskError(f"kernels are not measured in {unknown[0]}; choose from {', '.join(known)}.")
    peers = [name for name in against.split(",") if name]
    output = None if json_file is None else AtomicFile(json_file)
    report: dict[str, Any] = {}
    try:
        for report in compare(names or [], [known[name] for name in kinds], pick_device(device), peers):
            if output is not None:
                with output as file:
                    file.write(json.dumps(report, indent=1).encode() + b"\n")
    finally:  # what was measured before it was stopped, or before a kernel that is wrong, stays true
        if report:
            Console(width=max(Console().width, 170)).print(table_of(report))
    if plot_file is not None:
        from ..benchmarks.kernels.plot import plot

        plot(report, plot_file)


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(name for name in text.split(",") if name))


def _counts(text: str) -> list[int]:
    try:
        return [int(count) for count in _names(text)]
    except ValueError:
        raise SizeError(f"{text!r} is no list of batches; write whole numbers such as 1,8,32") from None
