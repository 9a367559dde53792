"""What the file of a panorama says of its scene, so that an edit can make the scene again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from zellige.errors import DataError

from ..files.hostile import shown
from .canvas.notes import notes_of
from .scene import Region

__all__ = ["Edit", "MapRecord", "SceneRecord", "read_record"]

_Whole = Annotated[int, Field(ge=0)]
_Side = Annotated[int, Field(ge=1, le=2**31)]
_Place = Annotated[int, Field(ge=-(2**31), le=2**31)]
_Length = Annotated[float, Field(ge=0, le=2**31, allow_inf_nan=False)]
_KEY = "scene"
_MOST_EDITS = 4096


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Edit(_Strict):
    """One edit: a region, and the latent that it got, which is image 0 of a seed or is written out."""

    region: tuple[_Place, _Place, _Side, _Side] = Field(description="x, y, width and height in pixels.")
    soften: _Length = Field(description="Pixels outside of the region over which the new latent fades.")
    seed: _Whole | None = None
    latent: tuple[Annotated[float, Field(ge=-1, le=1)], ...] | None = Field(None, max_length=4096)

    @model_validator(mode="after")
    def _one_latent(self) -> Self:
        if (self.seed is None) == (self.latent is None):
            raise ValueError("an edit has either a seed or a latent")
        return self

    @property
    def where(self) -> Region:
        """The region."""
        x, y, width, height = self.region
        return Region(y, x, height, width)


class MapRecord(_Strict):
    """The map of a panorama: the names of its files as they were given, what was in them, and its options."""

    map: str
    legend: str
    digests: tuple[str, str] = Field(description="Those of `RegionMap.digests`.")
    soften: _Length
    vary: float = Field(ge=0, le=1)


class SceneRecord(_Strict):
    """Everything that an edit must know of a scene beside the model and the precision.

    It is JSON under the name `scene` in the file's metadata.
    """

    size: tuple[_Side, _Side] = Field(description="Width and height of the panorama.")
    seed: _Whole
    runtime: str
    region: tuple[_Whole, _Whole, _Side, _Side] | None = Field(None, description="The part of it in the file.")
    blend: Literal["half-step"] | None = None
    map: MapRecord | None = None
    edits: tuple[Edit, ...] = Field((), max_length=_MOST_EDITS)

    @property
    def part(self) -> Region:
        """The part of the panorama that the file has."""
        x, y, width, height = self.region or (0, 0, *self.size)
        return Region(y, x, height, width)

    def note(self) -> dict[str, str]:
        """The record as an entry of a file's metadata."""
        return {_KEY: self.model_dump_json(exclude_defaults=True)}


def read_record(path: Path) -> tuple[Mapping[str, str], SceneRecord]:
    """The metadata of a panorama's file, and the record of its scene.

    Raises:
        DataError: the file cannot be read, or has no record.
        OutputError: its format is unknown.
        MissingExtraError: a package that reads it is not installed.
    """
    notes = notes_of(path)
    again = "render it again with `zellige panorama`, whose files say of which scene they are"
    if "model" not in notes:
        raise DataError(f"{path} does not say which model made it, so it cannot be edited; {again}")
    if _KEY not in notes:
        by = f" ({shown(notes['version'])})" if "version" in notes else ""
        raise DataError(
            f"{path} does not say of which scene it is, because the version that wrote it{by} did not note it; {again}"
        )
    try:
        return notes, SceneRecord.model_validate_json(notes[_KEY])
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "all of it"
        raise DataError(
            f"{path} describes its scene in a way that is not understood ({where}: {fault['msg']}); {again}"
        ) from None
