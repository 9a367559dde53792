"""The verb `zellige evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from zellige.errors import OutputError

from .flags import number, refuse_unused
from .options import Device, Json, Model, Precision, Seed
from .printing import report
from .train import Data

__all__ = ["evaluate"]


def evaluate(
    context: typer.Context,
    model: Model,
    data: Data = None,
    count: Annotated[
        int | None, number("Held-out pictures and images to compare; default the system's.", least=2, most=10**6)
    ] = None,
    image: Annotated[Path | None, typer.Option(help="Measure this rendered file instead of new images.")] = None,
    record: Annotated[bool, typer.Option("--record", help="Write the metrics into the checkpoint.")] = False,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
) -> None:
    """Measure a model by the metrics of its system, against held-out data."""
    from ..engine.checkpoint.file import read_header
    from ..engine.library import find, load_checkpoint
    from ..training.evaluate import record_metrics
    from ..training.systems import evaluate as measure
    from ..training.systems import evaluate_file

    if image is not None:
        refuse_unused(context, "--image", ("count", "record", "seed"))
    if record:
        _refuse_record(find(model))
    loaded = load_checkpoint(model, device, precision)
    if image is not None:
        return report({"model": loaded.name} | evaluate_file(loaded, image, data), as_json)
    found = measure(loaded, data, count, seed)
    if record:
        record_metrics(read_header(find(model)), found)
    report({"model": loaded.name} | found, as_json)


def _refuse_record(path: Path) -> None:
    """Refuse a file that cannot take the metrics, before minutes of work."""
    from ..engine.files.atomic import AtomicFile
    from ..engine.library import BUNDLED

    if path.resolve().is_relative_to(BUNDLED.resolve()):
        raise OutputError(
            f"{path} belongs to the installed package; copy it, such as cp {path} . and record the metrics in the copy "
            f"with zellige evaluate ./{path.name} --record"
        )
    if path.is_file():
        AtomicFile(path)
