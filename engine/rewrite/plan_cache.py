"""Keeps the times of layers' forms on disk, so that one measurement serves all processes of a user.

The file is one JSON object from a layer's key to milliseconds by form. A faulty file or entry counts as missing and is
written anew. If the file cannot be written, the times are not kept.
"""

import json
import logging
from pathlib import Path
from typing import Any

from zellige.errors import OutputError

from ..files.atomic import write_file
from ..files.cache import cache_folder
from ..files.hostile import open_regular
from ..files.lock import alone

__all__ = ["Times", "cache_file", "keep", "read"]

logger = logging.getLogger(__name__)
_LONGEST = 1e9  # milliseconds; no layer takes that long, so the entry is faulty
_EXPIRES = 10.0  # seconds; a healthy process holds the lock for milliseconds

Times = dict[str, float]  # milliseconds by form


def cache_file() -> Path:
    """The file of the times; raises RuntimeError as `cache_folder` does."""
    return cache_folder() / "rewrites.json"


def read() -> dict[str, Times]:
    """The times on disk, by the layer's key; faulty entries are left out."""
    try:
        with open_regular(cache_file()) as file:
            stored = json.loads(file.read().decode("utf-8"))
    except (OSError, ValueError, RuntimeError):  # RuntimeError: no home, or a file that is nested too deep
        return {}
    return {key: times for key, times in stored.items() if _are_times(times)} if isinstance(stored, dict) else {}


def keep(fresh: dict[str, Times]) -> dict[str, Times]:
    """Add times to the file and return the times to use, which are another process's if it stored the same forms first.

    Otherwise two processes that start together could choose differently, and their pictures' last bits would differ.
    """
    if not fresh:
        return fresh
    try:
        path = cache_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        with alone(path.with_suffix(".lock"), _EXPIRES):
            stored = read()
            for key, times in fresh.items():
                if stored.get(key, {}).keys() != times.keys():
                    stored[key] = times
            write_file(path, json.dumps(stored, indent=1).encode())
    except (OSError, OutputError, RuntimeError) as error:
        logger.info("the choice of rewrites is not kept: %s", error)
        return fresh
    return {key: stored[key] for key in fresh}


def _are_times(value: Any) -> bool:
    if not isinstance(value, dict) or not value:
        return False
    numbers = all(isinstance(time, float | int) and not isinstance(time, bool) for time in value.values())
    return numbers and all(0 < time < _LONGEST for time in value.values())
