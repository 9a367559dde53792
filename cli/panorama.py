"""The verb `zellige panorama`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..engine.systems import system_of
from .flags import Verb, given_options, with_options
from .options import Device, Json, Memory, Model, Overwrite, Precision, Runtime, Seed, Size, parse_size
from .printing import report
from .progress import progress
from .results import refuse_existing, refuse_same
from .tasks import offers_of

__all__ = ["panorama_verb"]


def panorama_verb() -> Verb:
    """Return the verb, with the options that systems declare for their task `panorama`."""
    return with_options(panorama, offers_of("panorama"))


def panorama(
    context: typer.Context,
    model: Model,
    out: Annotated[Path, typer.Option(help="The file: .tif (any size) or .png.")],
    size: Size = None,
    memory: Memory = None,
    seed: Seed = 0,
    preview: Annotated[Path | None, typer.Option(help="Also write a reduced PNG of the finished file here.")] = None,
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
    from ..engine.panorama.memory import resident_bytes

    width, height = parse_size(size)
    outputs = {"--out": [out]} | ({"--preview": [preview]} if preview is not None else {})
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
            out, width, height, memory, seed, progress=advance, **options.model_dump(exclude_unset=True)
        )
    if preview is not None:
        write_png(preview, np.asarray(reduce(out)))
        found["preview"] = str(preview)
    report({"model": generator.name} | found, as_json)
