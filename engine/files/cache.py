"""The folder of everything that was measured or built on this machine and can be made again."""

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """The folder ZELLIGE_CACHE, or zellige/ in the user's cache folder: absolute; it may not be there yet.

    A `~` at its beginning is the user's home: the shell leaves it in quotes, in files of settings and in containers.

    Raises:
        RuntimeError: the user has no home, which is asked for.
    """
    if folder := os.environ.get("ZELLIGE_CACHE"):
        return Path(folder).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).expanduser().absolute() if base else Path.home() / ".cache") / "zellige"
