"""The verbs of `zellige bench`, which measure panoramas, generators and kernels."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from zellige.errors import SizeError, TaskError

from ..engine.systems import all_systems
from .flags import number
from .options import Device, Json, Memory, Overwrite, Precision, Seed, Size, parse_size
from .printing import report, show
from .results import refuse_existing, refuse_same, save_json

__all__ = ["bench"]

MOST_BATCH = 65536
REFERENCES = ", ".join(name for system in all_systems() for name in system.references)
PANORAMIC = ", ".join(
    name for system in all_systems() if "panorama" in {task.name for task in system.tasks} for name in system.references
)

bench = typer.Typer(help="Measure, with everything compared in one run.", no_args_is_help=True)
Rounds = Annotated[int, number("Rounds, in which all take turns.", least=1, most=10_000)]
Save = Annotated[Path | None, typer.Option(help="Also write the results into this JSON file, anew as they come.")]


@bench.command("panorama")
def bench_panorama(
    model: Annotated[str, typer.Argument(help=f"A model's name or path, or of random weights {PANORAMIC}.")],
    size: Size = "16384x",
    against: Annotated[
        str | None, typer.Option(help="half-step, another model or a reference network instead of the bare generator.")
    ] = None,
    workers: Annotated[
        int | None,
        number("Compare one process of one thread with so many, in pixels a second a core.", least=2, most=256),
    ] = None,
    memory: Memory = "512MiB",
    seed: Seed = 0,
    rounds: Rounds = 5,
    save: Save = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
) -> None:
    """Compare the render to disk with the bare generator at the same batch, another way, or workers, in one run."""
    from ..benchmarks.panorama import HALF_STEP, measure, measure_against, measure_workers, panoramic

    width, height = parse_size(size)
    _refuse({"--save": save}, overwrite, {"the model": [Path(model)]})
    if workers is not None:
        if against is not None:
            raise TaskError("--workers is compared with one process; leave out --against")
        found = measure_workers(model, workers, width, height, memory, seed, rounds, device=device, precision=precision)
    elif against is None:
        found = measure(panoramic(model, device, precision), width, height, memory, seed, rounds)
    else:
        generator = panoramic(model, device, precision)
        other = None if against == HALF_STEP else panoramic(against, device, precision)
        found = measure_against(generator, other, width, height, memory, seed, rounds)
    save_json(save)(found)
    report(found, as_json)


@bench.command("generate")
def bench_generate(
    model: Annotated[str, typer.Argument(help=f"A model's name or path, or of random weights {REFERENCES}.")],
    batch: Annotated[str, typer.Option(help="Images a call, such as 1,8,32.")] = "1,8,32",
    precision: Annotated[str, typer.Option(help="fp32, bf16, or both.")] = "fp32,bf16",
    against: Annotated[
        str, typer.Option(help="Peers: eager, compile, onnxruntime, openvino, tensorrt; one that is missing is named.")
    ] = "eager,compile,onnxruntime,openvino",
    rounds: Rounds = 7,
    save: Save = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Compare a generator with its peers: first the images, then the times. Ctrl-C keeps the results so far."""
    from ..benchmarks.generate.compare import compare
    from ..benchmarks.generate.table import table_of
    from ..engine.device import pick_device

    batches, precisions, peers = _counts(batch), _names(precision), _names(against)
    _refuse({"--save": save}, overwrite, {"the model": [Path(model)]})
    _collect(compare(model, batches, precisions, pick_device(device), peers, rounds), save, table_of, as_json)


@bench.command("kernels")
def bench_kernels(
    names: Annotated[list[str] | None, typer.Argument(help="Kernels; none means all.")] = None,
    against: Annotated[
        str,
        typer.Option(help="Peers: eager, compile, sdpa, liger, onnxruntime, openvino; one that is missing is named."),
    ] = "eager,compile,sdpa,liger,onnxruntime,openvino",
    dtype: Annotated[str, typer.Option(help="Such as float32, or float32,bfloat16.")] = "float32,bfloat16",
    save: Save = None,
    plot_file: Annotated[
        Path | None, typer.Option("--plot", help="Also draw percent of the limit over shapes into this PNG file.")
    ] = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Compare kernels with peers: first results, then times and shares of limits. Ctrl-C keeps the results so far."""
    import torch

    from ..benchmarks.kernels.compare import compare
    from ..benchmarks.kernels.plot import plot
    from ..benchmarks.kernels.table import table_of
    from ..engine.device import pick_device

    known = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    kinds = _names(dtype)
    if unknown := [name for name in kinds if name not in known]:
        raise TaskError(f"kernels are not measured in {unknown[0]}; choose from {', '.join(known)}.")
    if not kinds:
        raise TaskError(f"there is no dtype to measure in; choose from {', '.join(known)}.")
    _refuse({"--save": save, "--plot": plot_file}, overwrite, {})
    reports = compare(names or [], [known[name] for name in kinds], pick_device(device), _names(against))
    found = _collect(reports, save, table_of, as_json, least=170)
    if plot_file is not None:
        plot(found, plot_file)


def _collect(
    reports: Iterator[dict[str, Any]],
    save: Path | None,
    table_of: Callable[[dict[str, Any]], RenderableType],
    as_json: bool,
    least: int = 140,
) -> dict[str, Any]:
    """Save each report as it comes, and print the last. It is valid even if the run was stopped or a peer was wrong."""
    write, found = save_json(save), dict[str, Any]()
    try:
        for found in reports:
            write(found)
    finally:
        if found and as_json:
            report(found, True)
        elif found:
            show(table_of(found), least=least)
    return found


def _refuse(files: Mapping[str, Path | None], overwrite: bool, inputs: Mapping[str, list[Path]]) -> None:
    """Refuse, before anything is measured, output files that exist, are the same, or cannot be written."""
    from ..engine.files.atomic import AtomicFile

    outputs = {flag: [path] for flag, path in files.items() if path is not None}
    refuse_same(outputs, inputs)
    for (path,) in outputs.values():
        refuse_existing([path], overwrite)
        AtomicFile(path)


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(name for name in text.split(",") if name))


def _counts(text: str) -> list[int]:
    try:
        counts = [int(count) for count in _names(text)]
    except ValueError:
        raise SizeError(f"{text!r} is no list of batches; write whole numbers such as 1,8,32") from None
    if max(counts, default=0) > MOST_BATCH:
        raise SizeError(f"a batch of {max(counts)} images is too large to measure; give {MOST_BATCH} or fewer")
    return counts
