"""The bundled models as ONNX files: an export takes seconds whatever a model's size, so tests that only read share."""

import json
import os
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from zellige.engine.device import DTYPES
from zellige.engine.files.lock import alone
from zellige.engine.library import list_models
from zellige.engine.systems import system_of
from zellige.export.onnx import export_onnx

# A pass over one patch of a COCO-GAN is all of its network; a picture would only be larger.
MODELS = {row["name"]: system_of(row["system"]).measured for row in list_models()}
BATCHES = (1, 3)  # of the verification
# (flavour, model, precision) of the files that are judged. Weights matter by precision, and graphs by flavour and
# precision: so each model is judged in every precision, and each family of graphs in both flavours and every precision.
# Those of planet and terrain differ in one Gather, and those of keys have no fused node.
FILES = [
    *product(("fused", "portable"), ["emoji"], DTYPES),
    *product(["fused"], ["terrain"], DTYPES), *product(["portable"], ["planet", "keys"], DTYPES),
]  # fmt: skip


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
    place.mkdir(parents=True, exist_ok=True)
    file, report = place / f"{name}.onnx", place / f"{name}.json"
    with alone(place / f"{name}.lock", expires=300):  # another worker may be at it
        if not report.exists():
            found = export_onnx(name, file, task=MODELS[name], flavour=flavour, precision=precision, batches=BATCHES)
            file.chmod(0o444)
            report.write_text(json.dumps(found))
    return Exported(file, json.loads(report.read_text()))
