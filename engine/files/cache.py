"""The folder that caches timings and engines, which belong to this machine and can be made again."""

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """The absolute path of the folder ZELLIGE_CACHE, else of zellige/ in the user's cache folder; it may not exist yet.

    A `~` at the beginning of ZELLIGE_CACHE is replaced here with the user's home, because a shell leaves it alone in
    quotes, and nothing replaces it in files of settings and in containers.

    Raises:
        RuntimeError: the path needs the user's home, and the user has none.
    """
    if folder := os.environ.get("ZELLIGE_CACHE"):
        return Path(folder).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).expanduser().absolute() if base else Path.home() / ".cache") / "zellige"
