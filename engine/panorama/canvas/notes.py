"""Reads what a finished picture says of its making, from where its canvas has put it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zellige.errors import DataError

from ...files.hostile import open_regular
from ...files.pictures import text_of
from ...files.pixels import is_tiff, tiff_page
from . import format_of, paths_of

__all__ = ["notes_of"]

_MOST_BYTES = 2**24  # of a file of JSON


def notes_of(path: Path) -> Mapping[str, str]:
    """The names and values that a picture's file holds beside the pixels; empty if it holds none.

    Raises:
        DataError: the file cannot be read.
        OutputError: no canvas writes its format.
        MissingExtraError: a TIFF was given and tifffile is not installed.
    """
    form = format_of(path)
    if is_tiff(path):
        with tiff_page(path, own=True) as page:
            return _parsed(page.description if page is not None else "")
    if form.module == "png":
        return _parsed(text_of(path, "Description"))
    if form.module == "zarr":
        return _strings(_json(path / "zarr.json", path), "attributes", "zellige")
    return _strings(_json(paths_of(path)[1] / "zellige.json", path), "zellige")


def _json(file: Path, path: Path) -> Any:
    try:
        with open_regular(file) as opened:
            content = opened.read(_MOST_BYTES + 1)
        return json.loads(content) if len(content) <= _MOST_BYTES else {}
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "it is no JSON"
        raise DataError(f"{path} is no picture of Zellige: {file} cannot be read, because {reason}") from None


def _parsed(text: str) -> Mapping[str, str]:
    try:
        return _strings(json.loads(text))
    except (ValueError, RecursionError):
        return {}


def _strings(value: Any, *keys: str) -> Mapping[str, str]:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return {name: text for name, text in value.items() if isinstance(text, str)} if isinstance(value, dict) else {}
