"""The verb `zellige generate`."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..engine.systems import system_of
from .flags import Verb, given_options, number, with_options
from .options import Device, Json, Model, OutFolder, Overwrite, Precision, Runtime, Seed
from .printing import report
from .progress import Advance, progress
from .results import listed, make_folder, refuse_existing, refuse_same, write_picture
from .tasks import offers_of

if TYPE_CHECKING:
    from ..engine.systems.system import Generator as Loaded

__all__ = ["generate_verb"]

MOST = 1_000_000  # images of a run, whose names are kept in memory and listed in the report
ON_SHEET = 64  # images on the contact sheet: the first ones, so that its memory does not grow with their number


def generate_verb() -> Verb:
    """Return the verb, with the options that systems declare for their task `generate`."""
    return with_options(generate, offers_of("generate"))


def generate(
    context: typer.Context,
    model: Model,
    out: OutFolder,
    count: Annotated[int, number("Number of images.", "-n", "--count", least=1, most=MOST)] = 16,
    seed: Seed = 0,
    first: Annotated[int, number("Number of the first image of the seed.", least=0, most=2**63 - 1)] = 0,
    overwrite: Overwrite = False,
    runtime: Runtime = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
    **values: Any,
) -> None:
    """Generate images: PNG files, written as they are made, and a contact sheet of the first 64."""
    from ..engine.library import find, load_task

    loaded = load_task("generate", model, device, precision, runtime)
    options = given_options(context, system_of(loaded.system).task("generate"), values, loaded.name)
    keywords = options.model_dump(exclude_unset=True)
    files = [out / f"{loaded.name}-{seed}-{first + k:04d}.png" for k in range(count)]
    sheet = out / f"{loaded.name}-{seed}-{f'{first:04d}-' if first else ''}sheet.png"
    refuse_existing([*files, sheet], overwrite)
    inputs = {"the model": [find(model)]}
    inputs |= {f"--{name}": [Path(value)] for name, value in keywords.items() if isinstance(value, str)}
    refuse_same({"--out": [*files, sheet]}, inputs)
    began = time.perf_counter()
    with progress("generating", lambda rate: f"{rate:.2f} images/s") as advance:
        _write(loaded, files, sheet, first, lambda k, n: loaded.generate(n, seed, first=k, **keywords), advance)
    seconds = time.perf_counter() - began
    height, width = loaded.size
    report(
        {
            "model": loaded.name,
            "images": count,
            "width": width,
            "height": height,
            "seconds": seconds,
            "images_per_second": count / seconds,
            "device": str(loaded.device),
            "precision": loaded.precision,
            "seed": seed,
            "first": first,
            "sheet": str(sheet),
            "files": listed(files, as_json),
        },
        as_json,
    )


def _write(
    model: "Loaded", files: Sequence[Path], sheet: Path, first: int, make: Callable[[int, int], Any], advance: Advance
) -> None:
    """Make images in batches, and write each as soon as it is made; only those on the sheet are kept."""
    from ..engine.files.pictures import contact_sheet

    kept: list[Any] = []
    written, total = 0, len(files)
    try:
        while written < total:
            images = make(first + written, min(model.batch, total - written))
            make_folder(sheet.parent)
            kept += list(images[: ON_SHEET - len(kept)])
            for image in images:
                write_picture(files[written], image)
                written += 1
                advance(written, total)
        write_picture(sheet, contact_sheet(_stacked(kept)))
    except KeyboardInterrupt:
        where = f", which are in {sheet.parent}" if written else ""
        rest = f"; go on with --first {first + written} --count {total - written}" if written < total else ""
        raise KeyboardInterrupt(f"stopped after {written} of {total} images{where}{rest}") from None


def _stacked(images: list[Any]) -> Any:
    import numpy as np

    return np.stack(images)
