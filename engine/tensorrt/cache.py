"""Engines on disk, each built once for all processes of a user.

A file `engines/KEY.engine` in the cache folder is a line of JSON and the engine. The line holds the engine's sha256 and
what it was built from, so that a file with whatever fault counts as not there and is written anew. Where nothing can be
written nothing is kept.
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
        graph: sha256 of the ONNX model, in hexadecimal; its weights and types are part of it.
        profiles: least, usual and largest batch of each.
        targets: that it is built for; of full TensorRT the capability of the device.
        device: name of the device that it is built on; empty where none is needed.
        flavour: "rtx" or "full".
        versions: of the libraries that build it, by name.
    """

    graph: str
    profiles: tuple[tuple[int, int, int], ...]
    targets: tuple[str, ...]
    device: str
    flavour: str
    versions: Mapping[str, str]

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        facts: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return facts

    @property
    def name(self) -> str:
        """Of its file: 32 hexadecimal digits."""
        text = json.dumps(self.facts(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def engines_folder() -> Path:
    """Where engines are kept; RuntimeError as of `cache_folder`."""
    return cache_folder() / "engines"


def cached(key: EngineKey, build: Callable[[], bytes], expires: float = _EXPIRES) -> bytes:
    """The engine of a key: read where it is kept, else built, and kept where that is possible.

    While one process builds, others wait for its engine. They stop waiting when it ends, however it ends, or when it
    holds the lock for longer than `expires`; then they build for themselves.

    Args:
        key: what it is built from.
        build: makes it; what it raises is raised here, and the next process tries again.
        expires: age of a lock that counts no more, in seconds.
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
        content = _read(path, key)  # of the process that held the lock before
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
    """Write a file anew, and clear away what killed processes left half written."""
    try:
        for left in path.parent.glob(PARTIAL):
            if time.time() - left.stat().st_mtime > _EXPIRES:
                left.unlink(missing_ok=True)
        line = json.dumps(_head(key, hashlib.sha256(content).hexdigest())).encode() + b"\n"
        write_file(path, line, content)
    except (OSError, OutputError) as error:
        logger.info("the engine is not kept: %s", error)
