"""Keeps engines on disk, so that each is built once for all processes of a user.

A file `engines/KEY.engine` in the cache folder is a line of JSON and the engine. The line holds the engine's sha256 and
its whole key, so that a faulty file counts as missing and is written anew. If the folder cannot be written, engines are
not kept.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zellige.errors import OutputError

from ..files.atomic import PARTIAL, write_file
from ..files.cache import cache_folder
from ..files.hostile import open_regular
from ..files.lock import alone

__all__ = ["EngineKey", "cached", "engines_folder"]

logger = logging.getLogger(__name__)
_FORMAT = 1
_LONGEST_LINE = 2**16
_EXPIRES = 900.0  # seconds; engines of large networks took minutes to build


@dataclass(frozen=True)
class EngineKey:
    """Everything that an engine depends on.

    Attributes:
        graph: sha256 of the ONNX model with its weights and types, in hexadecimal.
        profiles: least, usual and largest batch of each profile.
        targets: the GPUs that it is built for; with full TensorRT the device's capability.
        device: the name of the device that it is built on; empty if the flavour needs none.
        flavour: "rtx" or "full".
        versions: versions of the libraries that build it, by name.
    """

    graph: str
    profiles: tuple[tuple[int, int, int], ...]
    targets: tuple[str, ...]
    device: str
    flavour: str
    versions: Mapping[str, str]

    def facts(self) -> dict[str, Any]:
        """The key as JSON values."""
        facts: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return facts

    @property
    def name(self) -> str:
        """The name of the engine's file: 32 hexadecimal digits."""
        text = json.dumps(self.facts(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def engines_folder() -> Path:
    """The folder of engines; raises RuntimeError as `cache_folder` does."""
    return cache_folder() / "engines"


def cached(key: EngineKey, build: Callable[[], bytes], expires: float = _EXPIRES) -> bytes:
    """The engine of a key: read from disk, or built and written to disk.

    While one process builds, others wait for its engine. They stop waiting when that process ends, however it ends, or
    when it has held the lock for longer than `expires`. Then they build for themselves.

    Args:
        key: everything that the engine depends on.
        build: builds the engine; its errors are passed on, and the next process tries again.
        expires: the age in seconds at which a lock is ignored.
    """
    try:
        path = engines_folder() / f"{key.name}.engine"
        path.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        logger.info("the engine is not kept: %s", error)
        return build()
    content = _read(path, key)
    if content is not None:
        return content
    with alone(path.with_suffix(".lock"), expires):
        content = _read(path, key)  # the process that held the lock before may have built it
        if content is None:
            if path.exists():
                logger.warning("%s is damaged or of another version; the engine is built again", path)
            content = build()
            _keep(path, key, content)
    return content


def _read(path: Path, key: EngineKey) -> bytes | None:
    try:
        with open_regular(path) as file:
            line = file.readline(_LONGEST_LINE)
            content = file.read()
        head = json.loads(line)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        head = None
    digest = hashlib.sha256(content).hexdigest() if head else ""
    if head != _head(key, digest):
        return None
    return content


def _head(key: EngineKey, digest: str) -> dict[str, Any]:
    return {"format": _FORMAT, "sha256": digest, "key": key.facts()}


def _keep(path: Path, key: EngineKey, content: bytes) -> None:
    """Write an engine's file, and remove the unfinished files of processes that were killed."""
    try:
        for left in path.parent.glob(PARTIAL):
            if time.time() - left.stat().st_mtime > _EXPIRES:
                left.unlink(missing_ok=True)
        line = json.dumps(_head(key, hashlib.sha256(content).hexdigest())).encode() + b"\n"
        write_file(path, line, content)
    except (OSError, OutputError) as error:
        logger.info("the engine is not kept: %s", error)
