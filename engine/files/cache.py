"""Where what was measured or built on this machine is kept."""

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """The folder ZELLIGE_CACHE, or zellige/ in the user's cache folder; it may not be there yet.

    Raises:
        RuntimeError: neither is set and the user has no home.
    """
    if folder := os.environ.get("ZELLIGE_CACHE"):
        return Path(folder)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "zellige"
