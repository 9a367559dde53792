"""Edits of a panorama's file: its scene is made again from what the file says, and gets another latent in a region."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from zellige.errors import MapError, SizeError, TaskError

from ...device import available_memory, parse_bytes
from ...panorama.edits import Bump, EditedLatents, MixedLatents, bump_of, changed_by, overlap
from ...panorama.latents import fixed_latent
from ...panorama.legend import read_latent
from ...panorama.maps import RegionMap, read_map
from ...panorama.record import Edit, MapRecord, SceneRecord, read_record
from ...panorama.rewrite_file import rewrite_file
from ...panorama.scene import Region, Scene

if TYPE_CHECKING:
    from .pictures import PatchPictures

__all__ = ["Asked", "edit_file", "edited_scene", "noted"]

SOFTEN = 2  # micro patches over which an edit fades


@dataclass(frozen=True)
class Asked:
    """An edit as it is asked for; see `PatchPictures.edit`."""

    region: Region
    seed: int | None
    latents: Path | None
    soften: float | None


def edit_file(
    model: "PatchPictures",
    path: Path,
    out: Path,
    asked: Asked,
    memory: str | int | None,
    progress: Callable[[int, int], None],
    map: Path | None,
    legend: Path | None,
) -> dict[str, Any]:
    """Edit a file; arguments and result are those of `PatchPictures.edit`."""
    notes, record = read_record(path)
    _check_model(model, path, notes.get("model_sha256"), notes.get("precision"))
    soften = SOFTEN * model.config.patch if asked.soften is None else asked.soften
    if (asked.seed is None) == (asked.latents is None):
        raise TaskError("an edit needs one new latent: give a seed, or a file of latents")
    latent = None
    if asked.latents is not None:
        latent = tuple(read_latent(asked.latents, "the edit", model.config.latent).tolist())
    region = asked.region
    rectangle = _numbers(region)
    base = _base(model, path, record, map, legend)
    bump_of(base, region, soften)  # refuses what lies outside, before the record does
    if asked.seed is not None:
        fixed_latent(asked.seed, 0, model.config.latent)  # refuses a negative seed
    seed = None if asked.seed is None else int(asked.seed)
    new = Edit(region=rectangle, soften=float(soften), seed=seed, latent=latent)
    record = record.model_copy(update={"edits": (*record.edits, new)})
    scene, before, bump = edited_scene(model, base, record)
    changed = changed_by(scene, bump)
    if not any(overlap(part, record.part) for part in changed):
        part = record.part
        raise SizeError(
            f"{path} has the part {part.width}x{part.height} at ({part.left}, {part.top}) of its panorama, and the "
            "region lies outside of it, so no pixel would change; regions are in pixels of the panorama"
        )
    kept = {name: text for name, text in notes.items() if name not in ("version", "quality")}
    report = rewrite_file(
        model.patches, scene, before, changed, path, out,
        budget=available_memory(model.device) // 2 if memory is None else parse_bytes(memory),
        whole=record.part, metadata=kept | record.note(), name=model.name, advance=progress,
        quality=int(notes["quality"]) if notes.get("quality", "").isdecimal() else None,
    )  # fmt: skip
    asked_for = {"region": list(rectangle), "soften": soften, "seed": asked.seed, "edits": len(record.edits)}
    return report | {"device": str(model.device), "precision": model.precision, "out": str(out)} | asked_for


def edited_scene(model: "PatchPictures", base: Scene, record: SceneRecord) -> tuple[Scene, MixedLatents, Bump]:
    """The scene with all edits of a record, its latents without the last edit, and the last edit's weight.

    Raises:
        SizeError, TaskError: an edit does not fit the picture.
    """
    fields: list[MixedLatents] = [base.latents]  # type: ignore[list-item]  # fields of scenes of panoramas are
    moving = base.moving
    assert record.edits, "there is an edit"
    for edit in record.edits:
        bump = bump_of(base, edit.where, edit.soften)
        latent = fixed_latent(edit.seed, 0, model.config.latent) if edit.seed is not None else np.array(edit.latent)
        if latent.shape != (model.config.latent,):
            raise TaskError(f"an edit has {len(latent)} numbers for a latent of {model.config.latent}")
        fields.append(EditedLatents(fields[-1], latent, bump))
        moving = moving[0] or not bump.spans[0], moving[1] or not bump.spans[1]
    _check_steps(model, base, record, moving)
    return model.laid(record.size, fields[-1], moving, record.blend), fields[-2], bump


def noted(
    model: "PatchPictures", scene: Scene, seed: int, region: Region | None, blend: Literal["half-step"] | None,
    regions: RegionMap | None, map: str | Path | None, legend: str | Path | None, soften: float, vary: float,
) -> dict[str, str]:  # fmt: skip
    """What a panorama's file must say for edits, of the model and the scene; nothing for a model without a file."""
    if model.file is None:
        return {}
    drawn = None
    if regions is not None:
        drawn = MapRecord(
            map=str(map), legend=str(legend), digests=regions.digests(), soften=float(soften), vary=float(vary)
        )
    record = SceneRecord(
        size=(scene.width, scene.height), seed=int(seed), runtime=model.runtime, map=drawn,
        region=None if region is None else _numbers(region),
        blend=blend if any(scene.moving) else None,  # a still picture has no half steps
    )  # fmt: skip
    return {"model_sha256": _sha256(model.file)} | record.note()


def _numbers(region: Region) -> tuple[int, int, int, int]:
    """x, y, width and height as numbers of Python."""
    return int(region.left), int(region.top), int(region.width), int(region.height)


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _check_model(model: "PatchPictures", path: Path, digest: str | None, precision: str | None) -> None:
    """Refuse a model that did not make the file."""
    if model.file is None or digest is None:
        told = f"{path} does not tell the SHA-256 of its model" if digest is None else f"{model.name} has no file"
        raise TaskError(f"{told}, so nobody knows whether {model.name} made it; render it again")
    if _sha256(model.file) != digest:
        raise TaskError(
            f"{path} was made by another model than {model.file}: the SHA-256 of its model begins with {digest[:12]}. "
            "Say with --model where that model is."
        )
    if precision not in (None, model.precision):
        raise TaskError(
            f"{path} was made in {precision}, and {model.name} is loaded in {model.precision}; load it in {precision}"
        )


def _base(model: "PatchPictures", path: Path, record: SceneRecord, map: Path | None, legend: Path | None) -> Scene:
    """The scene without edits."""
    (width, height), blend = record.size, record.blend
    known: MapRecord | None = record.map
    if known is None:
        if map is not None or legend is not None:
            raise TaskError(f"{path} was made without a map; leave out {'map' if map is not None else 'legend'}")
        return model.scene(width, height, record.seed, blend=blend)
    files = map or Path(known.map), legend or Path(known.legend)
    regions = read_map(*files, model.config.latent)
    for name, file, before, now in zip(("map", "legend"), files, known.digests, regions.digests(), strict=True):
        if before != now:
            raise MapError(f"{path} was made with another {name} than {file} is now; say with --{name} where it is")
    return model.mapped(
        regions,
        width,
        height,
        record.seed,
        soften=known.soften,
        vary=known.vary,
        blend=blend,
    )


def _check_steps(model: "PatchPictures", base: Scene, record: SceneRecord, moving: tuple[bool, bool]) -> None:
    """Refuse an edit for which patches that lie edge to edge would have to lie at half steps."""
    if model.patches.inside is not None and record.blend is None:
        return
    for axis, (name, start, side) in enumerate((("height", "y", base.height), ("width", "x", base.width))):
        if moving[axis] and not base.moving[axis]:
            raise TaskError(
                f"{model.name} lays the patches of this picture edge to edge along its {name}. An edit that ends "
                f"there needs half steps, which would change pixels everywhere. Give the region all of the {name}, "
                f"{start} = 0 and {side} pixels, or use a model with dense places."
            )
