"""Everything that the command prints: reports for people and for programs, sentences, lines of logs.

Names of files and texts of models come from outside. They are printed unchanged: no markup or emoji codes are read in
them, and a pipe gets them whole. Control characters are shown instead of obeyed.
"""

import io
import json
import logging
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.table import Table

__all__ = ["LogLines", "Output", "facts", "finite", "grid", "report", "say", "show", "visible"]

_WIDE = 100_000  # characters a line if no terminal limits them


class LogLines(logging.Handler):
    """Log records as lines on standard error, looked up each time because a progress bar may have replaced it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        say(f"zellige: {record.levelname.lower()}: {visible(record.getMessage())}", error=True)


class Output(io.TextIOBase):
    """Standard output that remembers why it could not be written.

    Attributes:
        fault: the first error; None if there was none.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.fault: OSError | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream."""
        return self._stream.encoding or "utf-8"

    def write(self, text: str) -> int:
        """Write to the stream."""
        with self._remembered():
            return self._stream.write(text)

    def flush(self) -> None:
        """Flush the stream."""
        with self._remembered():
            self._stream.flush()

    def isatty(self) -> bool:
        """Tell whether the stream is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return the number of the stream's file."""
        return self._stream.fileno()

    @contextmanager
    def _remembered(self) -> Iterator[None]:
        try:
            yield
        except OSError as fault:
            self.fault = fault
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())  # else Python would write again when it ends
            raise


def visible(text: str) -> str:
    """Return text in one line; its control characters, which could move a terminal's cursor, become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def say(text: str, *, error: bool = False) -> None:
    """Print lines on standard output or standard error; characters that the stream cannot encode become escapes."""
    stream = sys.stderr if error else sys.stdout
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()


def show(*parts: RenderableType, least: int = 0) -> None:
    """Print tables and texts below each other for people.

    Args:
        parts: tables, or texts, whose strings are printed unchanged.
        least: least number of characters in a line; a narrower terminal breaks the lines itself.
    """
    console = Console(markup=False, emoji=False, highlight=False)
    console.width = max(console.width, least) if console.is_terminal else _WIDE
    with console.capture() as capture:
        console.print(*parts, sep="\n")
    say("\n".join(line.rstrip() for line in capture.get().rstrip("\n").split("\n")))


def report(values: Mapping[str, Any], as_json: bool) -> None:
    """Print a verb's report: one JSON object, or for people a table, and below it a table for each list of rows."""
    if as_json:
        say(json.dumps(finite(values), allow_nan=False))
        return
    rows = {key: value for key, value in values.items() if _is_table(value)}
    tables = [grid(value, title=key) for key, value in rows.items()]
    show(facts({key: value for key, value in values.items() if key not in rows}), *tables)


def facts(values: Mapping[str, Any], title: str | None = None) -> Table:
    """Make a table of two columns: names and values."""
    table = Table(show_header=False, box=None, title=title, title_justify="left", title_style="bold", pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in values.items():
        table.add_row(*_named(key, value))
    return table


def grid(rows: list[dict[str, Any]], title: str | None = None) -> Table:
    """Make a table of rows with the same keys; numbers are aligned on the right."""
    table = Table(box=None, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for key in rows[0]:
        numbers = all(isinstance(row[key], int | float | None) for row in rows)
        table.add_column(key, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else _plain(value) for value in row.values()))
    return table


def finite(value: Any) -> Any:
    """Return a value for JSON, which has neither infinity nor NaN: they become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(part) for key, part in value.items()}
    return [finite(part) for part in value] if isinstance(value, list | tuple) else value


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _named(key: str, value: Any) -> tuple[str, str]:
    """Return a name and its value for people; bytes get a unit that can be read at a glance."""
    if isinstance(value, int) and (key == "bytes" or key.endswith("_bytes")):
        return key.removesuffix("_bytes") if key != "bytes" else "size", _size(value)
    return key, _plain(value)


def _size(count: int) -> str:
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 1 << power:
            return f"{count / (1 << power):.1f} {unit}"
    return f"{count} bytes"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{visible(str(key))} {_plain(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(part) for part in value)
    return "-" if value is None else visible(str(value))
