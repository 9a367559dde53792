"""Files and folders that appear under their names only when they are complete. Nothing else in this package renames."""

import hashlib
import io
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, cast

from zellige.errors import OutputError

from .hostile import open_regular

__all__ = ["PARTIAL", "AtomicFile", "AtomicFolder", "output_errors", "partial_of", "sync", "take_name", "write_file"]

PARTIAL = ".zellige-*.partial"  # the names of unfinished files and folders, which lie beside their targets
_LONGEST = 200  # bytes of a target's name within the name of its partial; file systems allow 255 in all


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

    It is written under a temporary name in the same folder, flushed to the disk, then renamed over the target. So no
    reader ever sees half of it, and an older file survives every failure. If the path is a symbolic link, the link
    stays and the file that it points to is replaced. Use it as a context manager, or call `open`, then `commit` or
    `discard`. `discard` after `commit` does nothing.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Check that `path` can be written, by creating and removing a file beside it.

        Raises:
            OutputError: the folder is missing or read-only, or the path is a folder, a device or a pipe.
        """
        self.path = Path(path)
        self._target = _target(self.path)
        self._temporary = _beside(self._target)
        self._file: BinaryIO | None = None
        with output_errors(self.path):  # is_dir() itself fails on a name that is too long or in a closed folder
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

    def open(self, *, fixed: bool = False, resume: bool = False) -> BinaryIO:
        """Create the temporary file and return it, open for writing.

        Args:
            fixed: give it the name that `partial_of` tells, so that another process finds it, and replace an older one.
                The caller keeps other processes away.
            resume: open the older one with its content instead; it then can be read too.
        """
        self._temporary = partial_of(self.path) if fixed else _beside(self._target)
        with output_errors(self.path):
            if resume:
                self._file = io.BufferedRandom(
                    cast(io.FileIO, open_regular(self._temporary, os.O_RDWR | os.O_NOFOLLOW))
                )
            else:
                if fixed:
                    self._temporary.unlink(missing_ok=True)
                self._file = open(self._temporary, "xb")  # noqa: SIM115 - closed by commit, release or discard
        if fixed and not resume:
            _sync_names(self._temporary.parent)
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
            _sync_names(self._target.parent)

    def discard(self) -> None:
        """Remove the temporary file; the target stays as it was."""
        if self._file is None:
            return
        self.release()
        with suppress(OSError):  # the whole folder may have been removed meanwhile
            self._temporary.unlink()

    def release(self) -> None:
        """Close the temporary file and leave it, so that it can be resumed; the target stays as it was."""
        if self._file is not None:
            with suppress(OSError):  # closing flushes, which fails once more on a full disk
                self._file.close()
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


class AtomicFolder:
    """A folder that appears under its name only when it is complete, with all that lies in it.

    It is a context manager that gives a new folder beside the target. When the block ends, the folder's files are
    flushed to the disk and the folder takes the target's name. When the block fails, the folder is removed together
    with the parents that were made for it. Or call `open`, then `commit` or `discard`, as for a file.

    Attributes:
        durable: whether its writers have made all files durable, so that the end need not read millions of names.
    """

    def __init__(self, path: str | os.PathLike[str], replaces: Callable[[Path], bool] = lambda older: False) -> None:
        """Check that nothing but an empty folder lies at `path`, or an older one that may be replaced.

        Args:
            path: the folder.
            replaces: tells whether an older folder may be replaced. It is then renamed, and removed only once the new
                folder has its name.
        Raises:
            OutputError: the path is a file, or a folder that may not be replaced.
        """
        self.path = Path(path)
        self._target = _target(self.path)
        self._temporary = _beside(self._target)
        self._replaces = replaces
        self._made: list[Path] = []
        self.durable = False
        with output_errors(self.path):
            self._refuse_others()

    def check(self) -> None:
        """Refuse a path that cannot be written, by creating and removing a folder beside it.

        Raises:
            OutputError: the folder in which it lies is missing or read-only.
        """
        with output_errors(self.path):
            if not self._target.parent.is_dir():
                raise OutputError(
                    f"{self.path} cannot be written: there is no folder {self._target.parent}; create it."
                )
        self.open()
        self.discard()

    def open(self, *, fixed: bool = False, resume: bool = False) -> Path:
        """Create the temporary folder and return it; arguments are those of `AtomicFile.open`."""
        self._temporary = partial_of(self.path) if fixed else _beside(self._target)
        if resume:
            return self._temporary
        self._made = [folder for folder in self._target.parents if not os.path.lexists(folder)]
        try:
            with output_errors(self.path):
                if fixed and self._temporary.is_dir():
                    shutil.rmtree(self._temporary)
                self._temporary.mkdir(parents=True)
                if fixed:
                    _sync_names(self._temporary.parent)
        except OutputError:
            self.discard()
            raise
        return self._temporary

    def commit(self, part: str = ".") -> None:
        """Make the folder's files durable, then let it take its name.

        Args:
            part: the folder inside of the temporary one that takes the name; all else in it is removed.
        """
        with output_errors(self.path):
            content = self._temporary / part
            rest = () if self.durable else content.rglob("*")
            for path in chain([content], rest):  # one after the other, because there may be millions
                sync(path)
            self._refuse_others()
            older = _beside(self._target) if self._target.is_dir() and any(self._target.iterdir()) else None
            if older is not None:
                os.replace(self._target, older)
            try:
                os.replace(content, self._target)
            except OSError:
                if older is not None:
                    os.replace(older, self._target)
                raise
            self._made = []
            _sync_names(self._target.parent)
        if older is not None:
            shutil.rmtree(older, ignore_errors=True)

    def discard(self) -> None:
        """Remove the temporary folder; the target stays as it was."""
        shutil.rmtree(self._temporary, ignore_errors=True)
        for parent in self._made:
            with suppress(OSError):  # the parent was never made, or others have put something into it
                parent.rmdir()

    def release(self) -> None:
        """Leave the temporary folder, so that it can be resumed; the target stays as it was."""

    def __enter__(self) -> Path:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.commit()
        finally:
            self.discard()

    def _refuse_others(self) -> None:
        target = self._target
        if not target.exists() or (target.is_dir() and (not any(target.iterdir()) or self._replaces(target))):
            return
        raise OutputError(f"{self.path} is there already; remove it, or give another name.")


def write_file(path: str | os.PathLike[str], *parts: bytes) -> None:
    """Write the parts as one file that appears complete or not at all; raises OutputError as `AtomicFile` does."""
    output = AtomicFile(path)
    with output as file, output_errors(output.path):
        for part in parts:
            file.write(part)


def partial_of(path: str | os.PathLike[str], ending: str = "partial") -> Path:
    """The fixed name beside `path` of its unfinished content, or with another ending of what belongs to that."""
    target = _target(Path(path))
    name = os.fsencode(target.name)
    known = target.name if len(name) <= _LONGEST else hashlib.sha256(name).hexdigest()
    return target.with_name(f".zellige-{known}.{ending}")


def take_name(draft: Path, path: str | os.PathLike[str]) -> None:
    """Rename a finished file on the same file system to `path`, durably; a file that lies there is replaced.

    Raises:
        OutputError: the path cannot be written; the draft stays where it is.
    """
    target = _target(Path(path))
    with output_errors(Path(path)):
        sync(draft)
        os.replace(draft, target)
        _sync_names(target.parent)


def _target(path: Path) -> Path:
    """The path with symbolic links resolved, because renaming over a link would replace the link."""
    try:
        return Path(os.path.realpath(path))
    except ValueError as error:  # a NUL character
        raise OutputError(f"{str(path)!r} cannot be written: {error}; choose another name.") from None


def _beside(target: Path) -> Path:
    return target.with_name(f".zellige-{secrets.token_hex(8)}.partial")


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_names(folder: Path) -> None:
    # The new name is durable only once the folder is flushed. Some network file systems and Windows cannot open a
    # folder to flush it; the file's content is durable there too.
    with suppress(OSError):
        sync(folder)
