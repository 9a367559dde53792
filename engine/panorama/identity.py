"""Everything that decides the pixels of a panorama, so that a resumed one is told from another."""

import hashlib
from pathlib import Path
from typing import Any

import torch

from zellige.version import __version__

from ..device import precision_of, processor
from .patches import PatchMaker
from .scene import Region, Scene

__all__ = ["pixels_of"]


def pixels_of(
    file: Path, maker: PatchMaker, runtime: str, scene: Scene, seed: int, region: Region | None
) -> dict[str, Any]:
    """Everything that decides the pixels of a panorama without a map, as values of JSON.

    Args:
        file: the model's file; the weights beside an exported one count too.
        maker: the generator of its patches.
        runtime: the name of the runtime that runs it.
        scene, seed, region: the picture.
    """
    digest = hashlib.sha256()
    for part in (file, file.with_name(f"{file.name}.data")):
        if part.is_file():
            with part.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
    device = torch.cuda.get_device_name(maker.device) if maker.device.type == "cuda" else processor()
    return {
        "model": digest.hexdigest(),
        "seed": seed,
        "size": [scene.width, scene.height],
        "region": None if region is None else [region.left, region.top, region.width, region.height],
        "precision": precision_of(maker.dtype),
        "block": list(scene.block),
        "cells": list(scene.cells),
        "runtime": runtime,
        "device": device,
        "software": f"zellige {__version__}, torch {torch.__version__}",
    }
