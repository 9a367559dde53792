"""Files that appear under their names only when they are complete."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from zellige.errors import OutputError

__all__ = ["AtomicFile", "output_errors"]


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals (disk full, no permission) into one sentence about `path`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"{path} cannot be written: {reason}. Free some space there or choose another path."
        ) from error


class AtomicFile:
    """A binary file that appears under its name only when it is complete.

    It is written under a temporary name in the same folder, flushed to the disk, then renamed over the target, so
    that no reader ever sees half of it and an older file survives every failure. Use it as a context manager, or
    call `open`, then `commit` or `discard`. `discard` after `commit` does nothing.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Check that `path` can be written, by creating and removing a file beside it.

        Raises:
            OutputError: the folder is missing or read-only, or the path is a folder, a device or a pipe.
        """
        self.path = Path(path)
        # Renaming over a symbolic link would replace the link instead of what it points to.
        self._target = Path(os.path.realpath(path))
        self._temporary = self._target.with_name(f".zellige-{secrets.token_hex(8)}.partial")
        self._file: BinaryIO | None = None
        with output_errors(self.path):  # looking at a name that is too long or hidden fails, too
            if self._target.is_dir():
                raise OutputError(f"{self.path} is a folder; give the name of a file in it.")
            if self._target.exists() and not self._target.is_file():
                raise OutputError(f"{self.path} is a device or a pipe; give the name of an ordinary file.")
            if not self._target.parent.is_dir():
                raise OutputError(
                    f"{self.path} cannot be written: there is no folder {self._target.parent}; create it."
                )
        self.open()
        self.discard()

    def open(self) -> BinaryIO:
        """Create the temporary file and return it, open for writing."""
        with output_errors(self.path):
            self._file = open(self._temporary, "xb")  # noqa: SIM115 - closed by commit or discard
        return self._file

    def commit(self) -> None:
        """Make the file durable, then let it take its name."""
        assert self._file is not None, "open() comes first"
        with output_errors(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._temporary, self._target)
            self._file = None
            _sync_folder(self._target.parent)

    def discard(self) -> None:
        """Remove the temporary file; the target stays as it was."""
        if self._file is None:
            return
        with suppress(OSError):  # closing flushes, and on a full disk that fails again
            self._file.close()
        self._temporary.unlink(missing_ok=True)
        self._file = None

    def __enter__(self) -> BinaryIO:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.commit()
        finally:
            self.discard()


def _sync_folder(folder: Path) -> None:
    # The new name lives in the folder, and is durable only once that is. Some network file systems and Windows
    # cannot open a folder for this; the file itself is complete there too.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
