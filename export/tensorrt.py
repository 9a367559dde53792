"""Export from ONNX to TensorRT: the file of an engine, and a report on it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..engine.files.atomic import AtomicFile
from ..engine.runtimes.buckets import BUCKETS
from ..engine.tensorrt.build import EngineFile, Profile, build_engine
from ..engine.tensorrt.flavours import FlavourName

__all__ = ["EngineFile", "Profile", "build_engine", "export_tensorrt"]


def export_tensorrt(
    model: Path | bytes,
    out: Path,
    *,
    flavour: FlavourName | None = None,
    targets: Sequence[str] = (),
    profile: Profile | Sequence[Profile] = BUCKETS,
) -> dict[str, Any]:
    """Build an engine from an ONNX model and write it to a file, which appears complete or not at all.

    Args:
        model, flavour, targets, profile: as in `build_engine`.
        out: the file; an existing one is replaced.
    Returns:
        the report of `EngineFile`, and `path`.
    Raises:
        OutputError: the path cannot be written, which is checked first. The errors of `build_engine` are raised too.
    """
    file = AtomicFile(out)
    built = build_engine(model, flavour=flavour, targets=targets, profile=profile)
    with file as writer:
        writer.write(built.content)
    return built.report | {"path": str(out)}
