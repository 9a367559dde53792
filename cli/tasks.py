"""OneGAN's verbs of the command, on image files."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zellige.errors import TaskError

from .options import Device, Json, Model, Precision, report

if TYPE_CHECKING:
    from ..engine.systems.coco_gan.images import CocoGanImages
    from ..engine.systems.coco_gan.pictures import PatchPictures
    from ..engine.systems.onegan.images import OneGanImages
    from ..engine.systems.onegan.model import OneGan

__all__ = ["VERBS", "generation"]

Files = Annotated[
    list[str],
    typer.Argument(help="PNG, JPEG, WebP, BMP, GIF or TIFF images of any size; their centre squares are taken."),
]
Out = Annotated[Path, typer.Option(help="Folder for the PNG files; made when missing.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results that exist; default is to refuse.")]


def reconstruct(
    model: Model, files: Files, out: Out, overwrite: Overwrite = False, device: Device = "auto",
    precision: Precision = "auto", as_json: Json = False,
) -> None:  # fmt: skip
    """OneGAN: make images again, with foreground, background and mask: STEM-reconstruction.png and so on."""
    loaded = _load("reconstruct", model, device, precision)

    def task(squares: Any) -> dict[str, Any]:
        parts = loaded.reconstruct(squares)
        return {
            "reconstruction": parts.image,
            "foreground": parts.foreground,
            "background": parts.background,
            "mask": parts.mask,
        }

    _write(loaded, files, out, ("reconstruction", "foreground", "background", "mask"), task, overwrite, as_json)


def segment(
    model: Model, files: Files, out: Out,
    soft: Annotated[bool, typer.Option("--soft", help="Grey masks, without the threshold of 0.5.")] = False,
    overwrite: Overwrite = False, device: Device = "auto", precision: Precision = "auto", as_json: Json = False,
) -> None:  # fmt: skip
    """OneGAN: masks of the objects at the images' sizes, STEM-mask.png; black outside of the centre square."""
    loaded = _load("segment", model, device, precision)
    _write(loaded, files, out, ("mask",), lambda t: {"mask": loaded.segment(t, soft)}, overwrite, as_json)


def cluster(
    model: Model, files: Files,
    out: Annotated[Path, typer.Option(help="The CSV file: file, child, parent, confidence.")],
    overwrite: Overwrite = False, device: Device = "auto", precision: Precision = "auto", as_json: Json = False,
) -> None:  # fmt: skip
    """OneGAN: sort images into child classes (style) and parent classes (shape), into a CSV file."""
    from .results import cluster_to_table

    loaded = _load("cluster", model, device, precision)
    report(cluster_to_table(loaded, files, out, overwrite=overwrite), as_json)


def translate(
    model: Model, files: Files, out: Out,
    child: Annotated[int, typer.Option(help="Child class whose style the objects get.")],
    overwrite: Overwrite = False, device: Device = "auto", precision: Precision = "auto", as_json: Json = False,
) -> None:  # fmt: skip
    """OneGAN: give objects the style of another child class, STEM-child-K.png; shape, pose and background stay."""
    loaded = _load("translate", model, device, precision)
    name = f"child-{child}"
    _write(loaded, files, out, (name,), lambda t: {name: loaded.translate(t, child)}, overwrite, as_json)


def inpaint(
    model: Model, files: Files, out: Out, overwrite: Overwrite = False, device: Device = "auto",
    precision: Precision = "auto", as_json: Json = False,
) -> None:  # fmt: skip
    """OneGAN: remove the objects, STEM-background.png; the whole background is made again."""
    loaded = _load("inpaint", model, device, precision)
    _write(loaded, files, out, ("background",), lambda t: {"background": loaded.inpaint(t)}, overwrite, as_json)


def recompose(
    model: Model, files: Files, out: Out,
    background: Annotated[str, typer.Option(help="The image whose background is taken.")],
    overwrite: Overwrite = False, device: Device = "auto", precision: Precision = "auto", as_json: Json = False,
) -> None:  # fmt: skip
    """OneGAN: lay the objects of images over the background of another, STEM-on-BACKGROUND.png."""
    from ..engine.files.squares import cut_squares

    loaded = _load("recompose", model, device, precision)
    place = cut_squares([background], loaded.config.resolution)
    name = f"on-{Path(background).stem}"
    _write(loaded, files, out, (name,), lambda t: {name: loaded.recompose(t, place)}, overwrite, as_json)


VERBS = (reconstruct, segment, cluster, translate, inpaint, recompose)


def generation(
    model: str,
    child: int | None,
    parent: int | None,
    background: int | None,
    like: str | None,
    device: str,
    precision: str,
    runtime: str = "auto",
) -> "tuple[PatchPictures | OneGanImages | CocoGanImages, Callable[[int, int], Any]]":
    """A model of any system, and what makes images of it from their number and a seed.

    Raises:
        TaskError: classes or a reference image are given and the model is no OneGAN, or both are.
    """
    from ..engine.library import load, load_task

    classes: dict[str, Any] = {"child": child, "parent": parent, "background": background}
    given = [f"--{name}" for name, value in (classes | {"like": like}).items() if value is not None]
    if like is not None and len(given) > 1:
        raise TaskError(f"--like takes the classes from an image; leave out --like, or {given[0]}")
    if not given:
        loaded = load(model, device, precision, runtime=runtime)
        return loaded, loaded.generate
    if like is not None:
        encoding = _load("generate --like", model, device, precision, runtime)
        return encoding, lambda count, seed: encoding.like([like], count, seed)[0]
    chosen = load_task("generate", model, device, precision, runtime)
    return chosen, lambda count, seed: chosen.generate(count, seed, **classes)


def _load(task: str, model: str, device: str, precision: str, runtime: str = "auto") -> "OneGan":
    from ..engine.library import load_task

    return load_task(task, model, device, precision, runtime)


def _write(
    model: "OneGan",
    files: list[str],
    out: Path,
    endings: tuple[str, ...],
    task: Callable[[Any], dict[str, Iterable[Any]]],
    overwrite: bool,
    as_json: bool,
) -> None:
    from .results import write_for_each

    found = write_for_each(model, files, out, endings, task, overwrite=overwrite)
    names = found["files"]
    report(found | {"files": names if as_json else f"{names[0]} ... {Path(names[-1]).name}"}, as_json)
