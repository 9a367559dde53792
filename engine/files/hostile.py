"""Guards against hostile content: only regular files are opened, JSON is parsed strictly, values are shown short."""

import errno
import json
import math
import os
import reprlib
import stat
from pathlib import Path
from typing import Any, BinaryIO

from . import faults

__all__ = ["COPY_AGAIN", "MAX_DEPTH", "SAVE_AGAIN", "IrregularFileError", "open_regular", "shown", "strict_json"]

COPY_AGAIN = "copy or download the file again"
SAVE_AGAIN = "save the checkpoint again with the program that wrote it"
MAX_DEPTH = 64  # of JSON

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 120
shown = _short.repr  # a hostile value neither fills the screen nor breaks the line

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (lambda mode: True, "a device"),
)


class IrregularFileError(OSError):
    """The path is a folder, pipe, socket or device instead of a file; `strerror` says which."""


def open_regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> BinaryIO:
    """Open a regular file without ever waiting; a pipe is refused, because opening it may wait for its other end.

    Args:
        path: the file.
        flags: as in `os.open`: O_RDONLY to read; O_RDWR | O_CREAT to read and write, and to make a missing file.
    Returns:
        the file, unbuffered if it can be written.
    Raises:
        IrregularFileError: the path is a folder, pipe, socket or device. OSError, ValueError: as in `open`.
    """
    try:
        _check_regular(os.stat(path).st_mode)  # opening a device may set it to work
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    try:
        _check_regular(os.fstat(descriptor).st_mode)
        if flags & os.O_RDWR:
            return open(path, "r+b", buffering=0, opener=lambda *_: descriptor)
        return open(path, "rb", opener=lambda *_: descriptor)
    except BaseException:
        os.close(descriptor)
        raise


def _check_regular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next(name for is_kind, name in _KINDS if is_kind(mode))
        raise IrregularFileError(errno.EINVAL, f"it is {kind} and not a regular file")


def strict_json(text: str, path: Path, where: str) -> Any:
    """Parse JSON without the liberties of Python's parser.

    Args:
        text: the JSON.
        path, where: the file that the text came from and its place there, for errors.
    Returns:
        the values; numbers are finite and fit 64 bits, keys differ, nesting is at most `MAX_DEPTH` levels.
    Raises:
        DuplicateKeyError, NumberRangeError, NestingError, SurrogateError, JsonSyntaxError: the text breaks such a
            rule, or is not JSON.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members: dict[str, Any] = {}
        for key, value in pairs:
            if key in members:
                raise faults.DuplicateKeyError(f"{path}: {where} has the key {shown(key)} twice; {SAVE_AGAIN}.")
            members[key] = value
        return members

    def number(literal: str) -> int | float:
        is_integer = literal.lstrip("-").isdigit()
        # torch and the parser of safetensors hold integers of 64 bits; that parser takes -0 for a float.
        if is_integer and len(literal) <= 20 and literal != "-0" and -(2**63) <= int(literal) < 2**64:
            return int(literal)
        if not is_integer and math.isfinite(float(literal)):
            return float(literal)
        raise faults.NumberRangeError(
            f"{path}: {where} has the number {shown(literal)}, which is not finite or not in 64 bits; {SAVE_AGAIN}."
        )

    too_deep = faults.NestingError(f"{path}: {where} is nested deeper than {MAX_DEPTH} levels; {SAVE_AGAIN}.")
    try:
        document = json.loads(
            text, object_pairs_hook=unique, parse_int=number, parse_float=number, parse_constant=number
        )
        if _is_deep(document):
            raise too_deep
        if "\\u" in text:
            json.dumps(document, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise too_deep from None
    except UnicodeEncodeError:
        raise faults.SurrogateError(f"{path}: {where} has half of a surrogate pair; {SAVE_AGAIN}.") from None
    except json.JSONDecodeError as error:
        raise faults.JsonSyntaxError(
            f"{path}: {where} is not JSON ({error.msg} at character {error.pos}); {COPY_AGAIN}."
        ) from None
    return document


def _is_deep(document: Any) -> bool:
    level = [document]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
    return bool(level)
