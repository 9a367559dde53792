"""OneGAN's tasks on image files: everything is read before anything is written, and nothing is overwritten unasked."""

import csv
import io
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zellige.errors import OutputError

from ..engine.files.atomic import AtomicFile, output_errors
from ..engine.files.squares import Squares, cut_squares
from ..engine.systems.onegan.model import OneGan

__all__ = ["cluster_to_table", "write_for_each"]

Pixels = NDArray[np.uint8]
Task = Callable[[Squares], dict[str, Iterable[Pixels]]]


def write_for_each(
    model: OneGan, files: Sequence[str], out: Path, endings: Sequence[str], task: Task, *, overwrite: bool = False
) -> dict[str, Any]:
    """Run a task on image files, and write PNG files named STEM-ENDING.png.

    The squares of all files are held at once, 48 KiB each at 128 pixels; results are written batch by batch.

    Args:
        model: whose task it is.
        files: image files.
        out: folder for the results; made when missing, after everything was read.
        endings: of the names of the results.
        task: from some squares to one picture of each, uint8 [H, W, 3] or [H, W], for every ending.
        overwrite: replace files that exist.
    Returns:
        report: model, images, seconds, images_per_second, device, precision, files.
    Raises:
        DataError: a file is no image, or too large.
        OutputError: a result exists, two have the same name, or they cannot be written.
    """
    targets = {ending: [out / f"{Path(file).stem}-{ending}.png" for file in files] for ending in endings}
    for paths in targets.values():
        _check_names(files, paths, overwrite)
    began = time.perf_counter()
    squares = cut_squares(files, model.config.resolution)
    for start in range(0, len(squares), model.batch):
        results = task(squares[start : start + model.batch])
        with output_errors(out):  # only now, so that a refusal leaves no folder behind
            out.mkdir(parents=True, exist_ok=True)
        for ending, paths in targets.items():
            for path, picture in zip(paths[start : start + model.batch], results[ending], strict=True):
                _write(path, picture)
    written = [str(path) for paths in zip(*targets.values(), strict=True) for path in paths]
    return _report(model, len(files), began) | {"files": written}


def cluster_to_table(model: OneGan, files: Sequence[str], out: Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Write the classes of image files as CSV with the columns file, child, parent, confidence.

    Args:
        model: that knows the classes.
        files: image files.
        out: the table.
        overwrite: replace it if it exists.
    Returns:
        report: model, images, seconds, images_per_second, device, precision, out, and the number of clusters found.
    Raises:
        DataError: a file is no image, or too large.
        OutputError: the table exists, or cannot be written.
    """
    output = AtomicFile(out)  # refused before anything is read
    _check_names(files[:1], [out], overwrite)
    began = time.perf_counter()
    found = model.cluster(files)
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["file", "child", "parent", "confidence"])
    for file, child, parent, confidence in zip(files, found.child, found.parent, found.confidence, strict=True):
        table.writerow([file, child, parent, f"{confidence:.6f}"])
    with output as opened, output_errors(out):
        opened.write(text.getvalue().encode("utf-8", "surrogateescape"))  # names of files may be no UTF-8
    clusters = {"children": len(np.unique(found.child)), "parents": len(np.unique(found.parent))}
    return _report(model, len(files), began) | clusters | {"out": str(out)}


def _check_names(files: Sequence[str], paths: Sequence[Path], overwrite: bool) -> None:
    first: dict[Path, str] = {}
    for file, path in zip(files, paths, strict=True):
        if path in first:
            raise OutputError(f"{first[path]} and {file} would both become {path}; rename one, or use another --out")
        first[path] = file
        if os.path.lexists(path) and not overwrite:
            raise OutputError(f"{path} exists already; choose another --out, or replace it with --overwrite")


def _write(path: Path, picture: Pixels) -> None:
    output = AtomicFile(path)
    with output as file, output_errors(path):
        Image.fromarray(picture).save(file, format="PNG")


def _report(model: OneGan, images: int, began: float) -> dict[str, Any]:
    seconds = time.perf_counter() - began
    return {
        "model": model.name,
        "images": images,
        "seconds": seconds,
        "images_per_second": images / seconds,
        "device": str(model.device),
        "precision": model.precision,
    }
