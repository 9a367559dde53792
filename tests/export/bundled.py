"""The bundled models as ONNX files: an export takes seconds whatever a model's size, so tests that only read share."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from zellige.engine.library import list_models
from zellige.engine.systems import system_of
from zellige.export.onnx import export_onnx

# A pass over one patch of a COCO-GAN is all of its network; a picture would only be larger.
MODELS = {row["name"]: system_of(row["system"]).measured for row in list_models()}
BATCHES = (1, 3)  # of the verification


@dataclass(frozen=True)
class Exported:
    """A file, read-only, and what `export_onnx` reported of it."""

    path: Path
    report: dict[str, Any]


def folder_of(factory: pytest.TempPathFactory) -> Path:
    """A folder of this run, the same for all of its workers."""
    base = factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "bundled"


def export_once(folder: Path, name: str, flavour: Any = "portable", precision: str = "fp32") -> Exported:
    """A bundled model's file from the folder; whoever asks for it first exports it."""
    place = folder / f"{flavour}-{precision}"
    file, report = place / f"{name}.onnx", place / f"{name}.json"
    if not report.exists():
        place.mkdir(parents=True, exist_ok=True)
        found = export_onnx(name, file, task=MODELS[name], flavour=flavour, precision=precision, batches=BATCHES)
        file.chmod(0o444)
        draft = place / f"{name}-{os.getpid()}"  # two workers may be at it; both write the same
        draft.write_text(json.dumps(found))
        draft.replace(report)
    return Exported(file, json.loads(report.read_text()))
