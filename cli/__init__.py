"""The command `zellige`: one thin function a verb."""

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from zellige.errors import TaskError, UnknownRecipeError, ZelligeError

from .bench import bench
from .export import export
from .options import Device, Json, Memory, Model, Precision, Runtime, Seed, Size, parse_size
from .options import report as _report
from .tasks import VERBS, generation

__all__ = ["main"]

app = typer.Typer(
    help="Run and train GANs that compose images out of parts.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(bench, name="bench")

Data = Annotated[
    str | None, typer.Option(help="earth, earth-land, emoji, emoji-unseen, or a folder; default the one trained on.")
]


@app.callback()
def _options(debug: Annotated[bool, typer.Option(help="Show tracebacks.")] = False) -> None:
    global _debug
    _debug = debug


_debug = False


@app.command()
def info(
    model: Annotated[str | None, typer.Argument(help="Describe this model: a bundled name or a path.")] = None,
    rewrites: Annotated[
        bool,
        typer.Option("--rewrites", help="Of the model's layers, how long each form takes here, and which is used."),
    ] = False,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
) -> None:
    """Versions, devices, kernel backends that work here, and the precision that auto picks; or what a model is."""
    from ..engine.info import describe, describe_model, rewrites_table

    if model is None:
        if rewrites:
            raise TaskError("--rewrites is about a model's layers; name one, such as zellige info planet --rewrites")
        return _report(describe(), as_json)
    found = describe_model(model, device, precision, rewrites=rewrites)
    if as_json:
        return _report(found, True)
    rows = found.pop("rewrites", None)
    _report(found, False)
    if rewrites:
        Console(width=max(Console().width, 140)).print(rewrites_table(rows))


@app.command()
def models(
    folder: Annotated[Path | None, typer.Argument(help="Also list the checkpoints in this folder.")] = None,
    as_json: Json = False,
) -> None:
    """Bundled and local models: system, size, resolution, licence of the training data."""
    from ..engine.library import list_models

    rows = list_models(folder)
    if as_json:
        return _report({"models": rows}, True)
    table = Table("name", "system", "resolution", "parameters", "size", "licence of the data")
    for row in rows:
        megabytes = f"{row['bytes'] / 1e6:.1f} MB"
        table.add_row(
            row["name"], row["system"], row["resolution"], f"{row['parameters']:,}", megabytes, row["licence"]
        )
    Console().print(table)


@app.command()
def generate(
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder for the PNG files; made when missing.")],
    count: Annotated[int, typer.Option("-n", "--count", help="Number of images.")] = 16,
    seed: Seed = 0,
    child: Annotated[int | None, typer.Option(help="OneGAN: child class (style); default drawn.")] = None,
    parent: Annotated[int | None, typer.Option(help="OneGAN: parent class (shape); default the child's.")] = None,
    background: Annotated[int | None, typer.Option(help="OneGAN: background class; default the parent's.")] = None,
    like: Annotated[str | None, typer.Option(help="OneGAN: an image file whose classes to take.")] = None,
    runtime: Runtime = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
) -> None:
    """Generate images: PNG files and a contact sheet."""
    import time

    from ..engine.files.atomic import output_errors
    from ..engine.files.pictures import contact_sheet, write_png

    generator, make = generation(model, child, parent, background, like, device, precision, runtime)
    began = time.perf_counter()
    images = make(count, seed)
    seconds = time.perf_counter() - began
    with output_errors(out):  # only now, so that a refusal leaves no folder behind
        out.mkdir(parents=True, exist_ok=True)
    files = [out / f"{generator.name}-{seed}-{k:04d}.png" for k in range(count)]
    for path, image in zip(files, images, strict=True):
        write_png(path, image)
    sheet = out / f"{generator.name}-{seed}-sheet.png"
    write_png(sheet, contact_sheet(images))
    height, width = generator.size
    _report(
        {
            "model": generator.name,
            "images": count,
            "width": width,
            "height": height,
            "seconds": seconds,
            "images_per_second": count / seconds,
            "device": str(generator.device),
            "precision": generator.precision,
            "seed": seed,
            "sheet": str(sheet),
            "files": [str(path) for path in files] if as_json else f"{files[0]} ... {files[-1].name}",
        },
        as_json,
    )


@app.command()
def panorama(
    model: Model,
    out: Annotated[Path, typer.Option(help="The file: .tif (any size) or .png.")],
    size: Size = None,
    memory: Memory = None,
    seed: Seed = 0,
    preview: Annotated[Path | None, typer.Option(help="Also write a reduced PNG of the finished file here.")] = None,
    runtime: Runtime = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
) -> None:
    """Render a panorama of any size within a memory budget."""
    import numpy as np

    from ..engine.files.atomic import AtomicFile
    from ..engine.files.pictures import write_png
    from ..engine.files.preview import preview as reduce
    from ..engine.library import load_task

    width, height = parse_size(size)
    if preview is not None:
        AtomicFile(preview)  # a refusal comes before the rendering
    generator = load_task("panorama", model, device, precision, runtime)
    with _progress("rendering") as advance:
        report = generator.panorama(out, width, height, memory, seed, advance)
    if preview is not None:
        write_png(preview, np.asarray(reduce(out)))
        report["preview"] = str(preview)
    _report({"model": generator.name} | report, as_json)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name; an unknown one lists them all.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    data: Data = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, such as model.width=32.")] = None,
    steps: Annotated[int | None, typer.Option(help="Length of the run; default the recipe's.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint in --out.")] = False,
    start_from: Annotated[
        Path | None, typer.Option("--from", help="Another run's folder whose networks to start with.")
    ] = None,
    seed: Seed = 0,
    workers: Annotated[int, typer.Option(help="Processes that load data.")] = 1,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Train a model by a recipe."""
    from ..engine.device import pick_device
    from ..training.loop import train as run
    from ..training.recipe import with_settings
    from ..training.systems import find_recipe

    chosen = find_recipe(recipe)
    values = dict(_setting(text) for text in settings or []) | ({"steps": steps} if steps is not None else {})
    chosen = with_settings(chosen, values | ({"data": data} if data else {}))
    source = chosen.open_data(seed)
    details = {
        "recipe": recipe,
        "description": chosen.description,
        "data": chosen.data,
        "licence": source.licence,
        "command": shlex.join(["zellige", *sys.argv[1:]]),
    }
    report = run(
        chosen, source, out, resume=resume, start_from=start_from, seed=seed, device=pick_device(device),
        workers=workers, details=details,
    )  # fmt: skip
    _report({"recipe": recipe, "data": chosen.data} | report, as_json)


@app.command()
def evaluate(
    model: Model,
    data: Data = None,
    count: Annotated[
        int | None, typer.Option(help="Held-out pictures and images to compare; default 128, of a OneGAN 1024.")
    ] = None,
    image: Annotated[Path | None, typer.Option(help="Measure the seams of this rendered panorama instead.")] = None,
    record: Annotated[bool, typer.Option(help="Write the metrics into the checkpoint.")] = False,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
) -> None:
    """The metrics of a model's system: distance to the data, and seams, or masks and clusters, against the truth."""
    from ..engine.library import load_checkpoint
    from ..training.evaluate import check_recordable, record_metrics
    from ..training.systems import evaluate as measure
    from ..training.systems import evaluate_file

    generator = load_checkpoint(model, device, precision)
    if image is not None:
        return _report({"model": generator.name} | evaluate_file(generator, image, data), as_json)
    if record:
        check_recordable(generator.header)  # before the work
    report = measure(generator, data, count, seed)
    if record:
        record_metrics(generator.header, report)
    _report({"model": generator.name} | report, as_json)


for _verb in (*VERBS, export):
    app.command()(_verb)


def main() -> None:
    """Run the command; every error of ours is one sentence on stderr and exit status 2."""
    import logging

    from rich.logging import RichHandler

    # Before torch loads OpenMP, whose threads spin while they wait for each other, for so long that beside another busy
    # process images take many times as long. This is enough to lose nothing alone. Benchmarks leave it to who measures.
    if sys.argv[1:2] != ["bench"] and "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")

    console = Console(stderr=True)
    logging.basicConfig(level="WARNING", format="%(message)s", handlers=[RichHandler(console=console, show_path=False)])
    try:
        app()
    except ZelligeError as error:
        if _debug:
            raise
        print(f"zellige: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("zellige: stopped", file=sys.stderr)
        sys.exit(130)


def _setting(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not separator:
        raise UnknownRecipeError(f"{text!r} is no setting; write --set KEY=VALUE, such as --set model.width=32")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with rate, remaining time and memory in use on a terminal; nothing when piped."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from ..engine.panorama.memory import resident_bytes

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None, status="")

        def advance(done: int, total: int) -> None:
            elapsed = max(bar.tasks[task].elapsed or 0.0, 1e-3)
            status = f"{done / elapsed / 1e6:.2f} megapixels/s, {resident_bytes() >> 20} MiB resident"
            bar.update(task, completed=done, total=total, status=status)

        yield advance
