"""The files that verbs write: their names, the rules for replacing them, and the pictures and tables in them."""

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zellige.errors import OutputError

from .printing import finite

if TYPE_CHECKING:
    from ..engine.files.atomic import AtomicFile

__all__ = [
    "columns_of",
    "fit",
    "listed",
    "make_folder",
    "picture_names",
    "refuse_existing",
    "refuse_same",
    "save_json",
    "stem_of",
    "write_picture",
    "write_pictures",
    "write_table",
]

Advance = Callable[[int, int], None]
Paths = Sequence[Path]


def refuse_same(outputs: Mapping[str, Iterable[Path]], inputs: Mapping[str, Iterable[Path]]) -> None:
    """Refuse to write over an input or over another output, even if a link or another path names the file.

    Args:
        outputs: the files that will be written, by the flags that named them.
        inputs: the files that are read, likewise.
    Raises:
        OutputError: two of the names mean the same file.
    """
    taken = {_identity(path): flag for flag, paths in inputs.items() for path in paths}
    for flag, paths in outputs.items():
        for path in paths:
            other = taken.setdefault(_identity(path), flag)
            if other != flag:
                raise OutputError(f"{flag} would write {path}, which is also {other}; give {flag} another name")


def refuse_existing(paths: Iterable[Path], overwrite: bool) -> None:
    """Refuse to replace files unless `overwrite` allows it.

    Raises:
        OutputError: a file exists.
    """
    if overwrite:
        return
    for path in paths:
        if os.path.lexists(path):
            raise OutputError(f"{path} exists already; choose another name, or replace it with --overwrite")


def picture_names(files: Sequence[str], endings: Sequence[str], out: Path) -> list[list[Path]]:
    """Return the names STEM-ENDING.png of the results of image files, a list for each ending.

    Raises:
        OutputError: two files would get the same names.
    """
    first: dict[str, str] = {}
    for file in files:
        stem = stem_of(file)
        if stem in first:
            both = out / f"{stem}-{endings[0]}.png"
            raise OutputError(
                f"{first[stem]} and {file} would both become {both}; rename one, or give it another --out"
            )
        first[stem] = file
    return [[out / f"{stem}-{ending}.png" for stem in first] for ending in endings]


def listed(files: Sequence[Path], as_json: bool) -> list[str] | str:
    """Return files for a report: all of them for programs, the first and the last for people."""
    if as_json:
        return [str(path) for path in files]
    return str(files[0]) if len(files) == 1 else f"{files[0]} ... {files[-1].name}"


def stem_of(file: str) -> str:
    """Return the name of a file without folder and extension, made fit to be part of another name."""
    return fit(Path(file).stem)


def fit(value: Any) -> str:
    """Return a value as text that can be part of a file's name."""
    return re.sub(r"[/\\:\0]", "-", str(value))


def write_pictures(
    run: Callable[[Any], Sequence[Sequence[Any]]],
    rows: Any,
    batch: int,
    files: Sequence[str],
    targets: Sequence[Paths],
    advance: Advance,
) -> None:
    """Run a task on some rows of its inputs at a time, and write its pictures as they are made.

    Args:
        run: turns rows into pictures, uint8 [H, W, 3] or [H, W]; for each ending a sequence with one for each row.
        rows: the inputs, which have a length and can be sliced.
        batch: most rows in a call.
        files: the files that the rows were read from.
        targets: paths of the pictures, for each ending one for each row.
        advance: called with (rows done, rows in all).
    Raises:
        OutputError: a picture cannot be written.
        KeyboardInterrupt: the run was stopped; the message says how much was written.
    """
    out, written = targets[0][0].parent, 0
    try:
        for start in range(0, len(files), batch):
            made = run(rows[start : start + batch])
            make_folder(out)
            for row in range(len(made[0])):
                for pictures, paths in zip(made, targets, strict=True):
                    write_picture(paths[start + row], pictures[row])
                written += 1
                advance(written, len(files))
    except KeyboardInterrupt:
        where = f", whose results are in {out}" if written else ""
        rest = f"; go on with the files from {files[written]} on" if written < len(files) else ""
        raise KeyboardInterrupt(f"stopped after {written} of {len(files)} images{where}{rest}") from None


def make_folder(out: Path) -> None:
    """Make a folder for results. Callers wait for the first results, so that a refusal leaves no folder behind."""
    from ..engine.files.atomic import output_errors

    with output_errors(out):
        out.mkdir(parents=True, exist_ok=True)


def write_picture(path: Path, picture: Any) -> None:
    """Write a picture, uint8 [H, W, 3] or [H, W], as a PNG file, which appears complete or not at all."""
    import numpy as np
    from PIL import Image

    from ..engine.files.atomic import AtomicFile, output_errors

    output = AtomicFile(path)
    with output as file, output_errors(path):
        Image.fromarray(np.ascontiguousarray(picture)).save(file, format="PNG")


def columns_of(found: Any) -> dict[str, Any]:
    """Return the fields of a dataclass by name, in their order."""
    from dataclasses import fields

    return {field.name: getattr(found, field.name) for field in fields(found)}


def write_table(output: "AtomicFile", files: Sequence[str], columns: Mapping[str, Any]) -> None:
    """Write a CSV file with the names of files and a column for each array; fractions have six digits."""
    from ..engine.files.atomic import output_errors

    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["file", *columns])
    for file, *values in zip(files, *columns.values(), strict=True):
        table.writerow([file, *(_cell(value) for value in values)])
    with output as opened, output_errors(output.path):
        opened.write(text.getvalue().encode("utf-8", "surrogateescape"))  # names of files may not be UTF-8


def save_json(path: Path | None) -> Callable[[Mapping[str, Any]], None]:
    """Return a function that writes a report into a file, anew at every call; without a path it does nothing."""
    from ..engine.files.atomic import AtomicFile

    output = None if path is None else AtomicFile(path)

    def save(values: Mapping[str, Any]) -> None:
        if output is not None:
            with output as file:
                file.write(json.dumps(finite(values), indent=1, allow_nan=False).encode() + b"\n")

    return save


def _cell(value: Any) -> Any:
    plain = value.item() if hasattr(value, "item") else value
    return f"{plain:.6f}" if isinstance(plain, float) else plain


def _identity(path: Path) -> tuple[int, int] | str:
    """Return a value that all names of a file share: hard and symbolic links, relative and absolute paths."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return os.path.realpath(path)
    return found.st_dev, found.st_ino
