"""Turns weights that another program wrote into a model file, by whichever system knows their names."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from torch import Tensor

from zellige.errors import SizeError

from ..checkpoint import faults
from ..checkpoint.file import check_suffix, write_checkpoint
from ..checkpoint.foreign.content import Content
from ..checkpoint.foreign.opening import open_foreign
from ..files.atomic import AtomicFile
from ..files.hostile import shown
from . import all_systems
from .system import System

__all__ = ["Converted", "convert_file", "converters", "recognised"]

SAMPLES = 100_000  # latents from which a missing mean is estimated


@dataclass(frozen=True)
class Converted:
    """What a system makes of a foreign file.

    Attributes:
        tensors: by their names in a model file.
        config: the system's configuration, read off the shapes.
        source: JSON values that say where the weights come from, and which of them were made.
    """

    tensors: Mapping[str, Tensor]
    config: BaseModel
    source: Mapping[str, Any]


def convert_file(
    path: str | os.PathLike[str], out: str | os.PathLike[str], *, licence: str = "unknown", seed: int = 0,
    samples: int = SAMPLES,
) -> dict[str, Any]:  # fmt: skip
    """Write the model file of weights that another program wrote; nothing that they carry is run.

    Args:
        path: a torch file, a pickle or a safetensors file.
        out: the model file, which is made or replaced; its name ends in .safetensors.
        licence: of the weights, which goes into the file.
        seed: of numbers that the file lacks: constant noise, and latents for the mean of style vectors.
        samples: latents from which a missing mean is estimated, at least 1.
    Returns:
        a report: system, source of the weights, configuration, parameters, bytes, seconds.
    Raises:
        CheckpointError: the file cannot be read, no system knows its tensors, or they do not fit; the subclass names
            the fault.
        OutputError: `out` cannot be written.
    """
    start, out = time.perf_counter(), Path(out)
    if samples < 1:
        raise SizeError(f"a mean of {samples} latents is none; take at least 1")
    check_suffix(out)
    AtomicFile(out)
    content = open_foreign(path)
    system, made = recognised(content, seed, samples)
    source = {"file": content.path.name, "container": content.container, "sha256": content.sha256, **made.source}
    config = made.config.model_dump(mode="json")
    details = {"licence": licence, "description": f"{system.title}, converted", "source": source}
    write_checkpoint(out, made.tensors, system=system.name, config=config, details=details)
    return {
        "model": str(out),
        "system": system.name,
        **source,
        "licence": licence,
        **config,
        "parameters": sum(tensor.numel() for tensor in made.tensors.values()),
        "bytes": out.stat().st_size,
        "seconds": round(time.perf_counter() - start, 3),
    }


def recognised(content: Content, seed: int = 0, samples: int = SAMPLES) -> tuple[System, Converted]:
    """The system that knows a foreign file's tensors, and what it makes of them; arguments as of `convert_file`.

    Raises:
        CheckpointError: no system knows the tensors, or they do not fit the one that does.
    """
    for system in converters():
        made: Converted | None = system.part("convert").convert(content, seed, samples)
        if made is not None:
            return system, made
    names = ", ".join(shown(name) for name in list(content.tensors)[:3])
    found = f"holds the tensors {names} and others" if names else "holds no tensors"
    known = "; ".join(f"{system.title} of {', '.join(system.part('convert').LAYOUTS)}" for system in converters())
    raise faults.UnknownLayoutError(f"{content.path} {found}, whose layout no system knows; known are {known}.")


def converters() -> list[System]:
    """The systems that can convert, which are those with a file `convert.py`."""
    return [system for system in all_systems() if system.has("convert")]
