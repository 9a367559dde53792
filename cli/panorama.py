"""The verb `zellige panorama`."""

import hashlib
from pathlib import Path
from typing import Annotated, Any

import typer

from ..engine.systems import system_of
from .flags import Verb, command_of, given_options, number, with_options
from .options import Device, Json, Memory, Model, Overwrite, Precision, Runtime, Seed, Size, parse_region, parse_size
from .printing import report
from .progress import progress
from .results import refuse_existing, refuse_same
from .tasks import offers_of

__all__ = ["panorama_verb"]

# Options that change no pixel. Without them the same picture keeps the same bytes.
_NOT_THE_PICTURE = ("out", "memory", "preview", "dry_run", "overwrite", "as_json")


def panorama_verb() -> Verb:
    """Return the verb, with the options that systems declare for their task `panorama`."""
    return with_options(panorama, offers_of("panorama"))


def panorama(
    context: typer.Context,
    model: Model,
    out: Annotated[Path, typer.Option(help="The file: .tif, .zarr (any size), .dzi (Deep Zoom) or .png.")],
    size: Size = None,
    memory: Memory = None,
    seed: Seed = 0,
    region: Annotated[
        str | None, typer.Option(help="X,Y,WIDTH,HEIGHT of the panorama in pixels: the file gets this part alone.")
    ] = None,
    preview: Annotated[Path | None, typer.Option(help="Also write a reduced PNG of the finished file here.")] = None,
    compression: Annotated[
        str | None,
        typer.Option(help=".tif: deflate (default), none, zstd, jpeg. .zarr: zstd, none. .dzi: jpeg, png."),
    ] = None,
    quality: Annotated[
        int | None,
        number("Of JPEG. Pixels of a planet are off by 1.8 levels at 95 (default), by 3.2 at 75.", least=1, most=100),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write nothing; predict patches, memory, time and size of the file.")
    ] = False,
    overwrite: Overwrite = False,
    runtime: Runtime = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
    **values: Any,
) -> None:
    """Render a panorama of any size within a memory budget."""
    import numpy as np

    from ..engine.files.atomic import AtomicFile
    from ..engine.files.pictures import write_png
    from ..engine.files.preview import preview as reduce
    from ..engine.library import find, load_task
    from ..engine.panorama.canvas import paths_of
    from ..engine.panorama.memory import resident_bytes
    from ..engine.panorama.scene import Region

    width, height = parse_size(size)
    part = None
    if region is not None:
        x, y, *sides = parse_region(region)
        part = Region(y, x, sides[1], sides[0])
    outputs = {"--out": paths_of(out)} | ({"--preview": [preview]} if preview is not None else {})
    inputs = {f"--{name}": [value] for name, value in values.items() if isinstance(value, Path)}
    refuse_same(outputs, {"the model": [find(model)]} | inputs)
    refuse_existing([path for paths in outputs.values() for path in paths], overwrite)
    if preview is not None:
        AtomicFile(preview)  # refuses a path that cannot be written, before the rendering
    generator: Any = load_task("panorama", model, device, precision, runtime)
    options = given_options(context, system_of(generator.system).task("panorama"), values, generator.name)

    def status(rate: float) -> str:
        return f"{rate / 1e6:.2f} megapixels/s, {resident_bytes() >> 20} MiB resident"

    with progress("rendering", status) as advance:
        found = generator.panorama(
            out, width, height, memory, seed, progress=advance, region=part, dry_run=dry_run,
            compression=compression, quality=quality, metadata=_metadata(context, find(model)),
            **options.model_dump(exclude_unset=True),
        )  # fmt: skip
    if preview is not None and not dry_run:
        write_png(preview, np.asarray(reduce(out)))
        found["preview"] = str(preview)
    report({"model": generator.name} | found, as_json)


def _metadata(context: typer.Context, model: Path) -> dict[str, str]:
    """Return what the picture's file says of its making, beside what the model adds."""
    with model.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"model_sha256": digest, "command": command_of(context, _NOT_THE_PICTURE)}
