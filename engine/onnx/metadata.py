"""The metadata of an exported file, written and read in one place so that both sides use the same keys."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from zellige.errors import CheckpointError, UnknownModelError
from zellige.version import __version__

from ..files.hostile import shown, strict_json

__all__ = ["Metadata"]

_FORMAT = "1"
_PREFIX = "zellige."  # of the keys
_UNKNOWN = {"model": "unknown", "flavour": "unknown", "licence": "unknown"}  # values of keys that a file may lack
_LONGEST = 200  # characters of a value; the configuration has a bound of its own
_LARGEST = 2**31 - 1  # pixels of a side
_AGAIN = "export it again"


@dataclass(frozen=True)
class Metadata:
    """The metadata of an exported file.

    Attributes:
        system: the name of the model's system.
        task: the graph's key in GRAPHS of the system's `graphs.py`.
        config: the fields of the system's Config as JSON values; nothing has validated them after `read`.
        precision: the precision of feature maps, such as "fp32".
        output: "image" for bytes, "float" for float32 in [-1, 1].
        height, width: the size of the model's image in pixels.
        model: the name of the model that was exported.
        flavour: "portable" or "fused".
        licence: the model's licence.
    """

    system: str
    task: str
    config: Mapping[str, Any]
    precision: str
    output: str
    height: int
    width: int
    model: str
    flavour: str
    licence: str

    def write(self, model: Any) -> None:
        """Add the metadata, with keys in alphabetical order, to an onnx.ModelProto that has none."""
        model.producer_name, model.producer_version = "zellige", __version__
        model.domain = "zellige"
        said = {"format": _FORMAT} | {field.name: str(getattr(self, field.name)) for field in fields(self)}
        said["config"] = json.dumps(self.config, sort_keys=True)
        for key in sorted(said):
            model.metadata_props.add(key=f"{_PREFIX}{key}", value=said[key])

    @classmethod
    def read(cls, model: Any, path: Path) -> "Metadata":
        """Read the metadata of a model.

        Args:
            model: an onnx.ModelProto, from `open_model`.
            path: the model's file, for errors.
        Raises:
            UnknownModelError: the model lacks metadata.
            CheckpointError: a value of the metadata is impossible.
        """
        own = (entry for entry in model.metadata_props if entry.key.startswith(_PREFIX))
        said = _UNKNOWN | {entry.key.removeprefix(_PREFIX): entry.value for entry in own}
        if any(field.name not in said for field in fields(cls)):
            raise UnknownModelError(
                f"{path} does not say what it is, so it was not written by `zellige export`, or cut off; "
                "give a model's checkpoint, or a file that was exported from one"
            )
        if said.get("format", _FORMAT) != _FORMAT:
            raise CheckpointError(
                f"{path} has the format {shown(said['format'])}, and this version reads {_FORMAT}; update zellige"
            )
        values: dict[str, Any] = {field.name: said[field.name] for field in fields(cls)}
        config = strict_json(values.pop("config"), path, "its configuration")
        if not isinstance(config, dict):
            raise CheckpointError(f"{path} has the configuration {shown(config)}, which is no JSON object; {_AGAIN}")
        for key, text in values.items():
            if not 0 < len(text) <= _LONGEST or not text.isprintable():
                raise CheckpointError(f"{path} has the {key} {shown(text)}, which is no name; {_AGAIN}")
        height, width = (_pixels(values.pop(key), key, path) for key in ("height", "width"))
        return cls(config=config, height=height, width=width, **values)


def _pixels(text: str, key: str, path: Path) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= _LARGEST:
        raise CheckpointError(f"{path} has the {key} {shown(text)}, which is no number of pixels; {_AGAIN}")
    return int(text)
