"""The verb `zellige panorama edit`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from zellige.errors import OutputError, TaskError, UnknownModelError

from .flags import number
from .options import MOST_SEED, Device, Json, Memory, Overwrite, parse_region
from .printing import report
from .progress import progress
from .results import refuse_existing, refuse_same

__all__ = ["WithEdit"]

_VERB = "edit"


class WithEdit(TyperCommand):
    """The command of `zellige panorama`, which hands over to that of `zellige panorama edit`.

    It is no group, because the first argument of `zellige panorama` is any model's name. A file called `edit` is
    given as `./edit`.
    """

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Read the arguments of either command."""
        if args[:1] != [_VERB]:
            return super().make_context(info_name, args, parent, **extra)
        app = typer.Typer(add_completion=False)
        app.command(_VERB)(edit)
        return typer.main.get_command(app).make_context(f"{info_name} {_VERB}", args[1:], parent, **extra)


def edit(
    file: Annotated[Path, typer.Argument(help="A .tif, .zarr or .png of `zellige panorama`, or a .dzi of PNG.")],
    region: Annotated[
        str, typer.Option(help="X,Y,WIDTH,HEIGHT of the panorama in pixels; it may go round where a picture closes.")
    ],
    seed: Annotated[
        int | None, number("The region gets the latent of image 0 of this seed.", least=0, most=MOST_SEED)
    ] = None,
    latents: Annotated[Path | None, typer.Option(help="A .npy file with the region's latent instead.")] = None,
    soften: Annotated[
        float | None,
        number("Pixels outside of the region over which the latent fades; 2 micro patches if left out.", least=0),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The new file, with the extension of the old one.")] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Replace the file when the new one is complete.")
    ] = False,
    model: Annotated[str | None, typer.Option(help="Where the panorama's model is, if it is not bundled.")] = None,
    map: Annotated[Path | None, typer.Option(help="Where the panorama's map is now, if it was moved.")] = None,
    legend: Annotated[Path | None, typer.Option(help="Where the legend of the map is now.")] = None,
    memory: Memory = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Give a region of a panorama another latent, and render the pixels anew that this changes."""
    from ..engine.library import find, load_task
    from ..engine.panorama.canvas import paths_of
    from ..engine.panorama.record import read_record
    from ..engine.panorama.scene import Region

    x, y, width, height = parse_region(region)
    if (out is None) != in_place:
        both = "; --in-place goes without --out" if in_place else ""
        raise OutputError(f"say where the edited picture goes: --out NEW, or --in-place to replace {file}{both}")
    if (seed is None) == (latents is None):
        raise TaskError("an edit needs one new latent: give --seed, or a file with --latents")
    target = file if out is None else out
    notes, record = read_record(file)
    path = find(model) if model is not None else _bundled(notes, file)
    inputs = {"the model": path, "--latents": latents, "--map": map, "--legend": legend}
    others = {"the picture": paths_of(file)} if out is not None else {}
    refuse_same(
        {"--out" if out is not None else "--in-place": paths_of(target)},
        others | {flag: [given] for flag, given in inputs.items() if given is not None},
    )
    refuse_existing(paths_of(target), overwrite or in_place)
    generator: Any = load_task("panorama", path, device, notes.get("precision", "auto"), record.runtime)
    with progress("rewriting", lambda rate: f"{rate / 1e6:.2f} megapixels/s") as advance:
        found = generator.edit(
            file, target, Region(y, x, height, width), seed, latents=latents, soften=soften, memory=memory,
            progress=advance, map=map, legend=legend,
        )  # fmt: skip
    report({"model": generator.name, "file": str(file)} | found, as_json)


def _bundled(notes: Mapping[str, str], file: Path) -> Path:
    """Return the path of the bundled model that a file names."""
    from ..engine.library import find

    name = notes["model"]
    try:
        if Path(name).name == name and not Path(name).suffix:
            return find(name)
    except UnknownModelError:
        pass
    raise UnknownModelError(f"{file} was made by the model {name}, which is not bundled; say with --model where it is")
