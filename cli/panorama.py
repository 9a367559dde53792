"""The verb `zellige panorama`."""

import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from ..engine.systems import system_of
from .flags import Verb, command_of, given_options, number, refuse_unused, with_options
from .options import Device, Json, Memory, Model, Overwrite, Precision, Runtime, Seed, Size, parse_region, parse_size
from .printing import report, say
from .progress import progress
from .results import refuse_existing, refuse_same
from .tasks import offers_of

__all__ = ["panorama_verb"]

# Options that change no pixel. Without them the same picture keeps the same bytes.
_NOT_THE_PICTURE = (
    "out",
    "memory",
    "preview",
    "dry_run",
    "resume",
    "overwrite",
    "as_json",
    "workers",
    "devices",
    "ray",
)


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
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a run of the same options was stopped; not for .png.")
    ] = False,
    workers: Annotated[int, number("Processes that divide the CPU and the memory.", least=1, most=256)] = 1,
    devices: Annotated[
        str | None, typer.Option(help="CUDA devices such as cuda:0,cuda:1, with a process each, instead of --device.")
    ] = None,
    ray: Annotated[
        str | None, typer.Option(help="host:port of a Ray cluster that shares the folder of a .zarr, or auto.")
    ] = None,
    overwrite: Overwrite = False,
    runtime: Runtime = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
    **values: Any,
) -> None:
    """Render a panorama of any size within a memory budget. `zellige panorama edit --help` says how to edit one."""
    import numpy as np

    from ..engine.files.atomic import AtomicFile
    from ..engine.files.pictures import write_png
    from ..engine.files.preview import preview as reduce
    from ..engine.library import find, load_task
    from ..engine.panorama.canvas import is_unfinished, paths_of
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
    if resume and not overwrite and all(map(os.path.lexists, paths_of(out))) and not is_unfinished(out):
        say(f"zellige: {out} is there, and nothing of it is unfinished, so there is nothing to resume", error=True)
        report({"model": find(model).stem, "out": str(out), "pixels_resumed": 0}, as_json)
        return
    refuse_existing([path for paths in outputs.values() for path in paths], overwrite)
    if preview is not None:
        AtomicFile(preview)  # refuses a path that cannot be written, before the rendering
    if ray is not None:
        refuse_unused(context, "--ray", ["workers", "devices", "dry_run"])
    if devices is not None:
        refuse_unused(context, "--devices", ["device"])
        device = devices.split(",")[0].strip()
    generator: Any = load_task("panorama", model, device, precision, runtime)
    options = given_options(context, system_of(generator.system).task("panorama"), values, generator.name)

    def status(rate: float) -> str:
        return f"{rate / 1e6:.2f} megapixels/s, {resident_bytes() >> 20} MiB resident"

    # Ray prints what it sees of dead nodes to the standard output, which is the report's.
    with redirect_stdout(sys.stderr), progress("rendering", status) as advance:
        found = generator.panorama(
            out, width, height, memory, seed, progress=advance, region=part, dry_run=dry_run,
            resume=resume, compression=compression, quality=quality, workers=workers, devices=devices, ray=ray,
            metadata={"command": command_of(context, _NOT_THE_PICTURE)}, **options.model_dump(exclude_unset=True),
        )  # fmt: skip
    if preview is not None and not dry_run:
        write_png(preview, np.asarray(reduce(out)))
        found["preview"] = str(preview)
    report({"model": generator.name} | found, as_json)
