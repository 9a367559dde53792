"""The journal of an unfinished picture: what it is a picture of, how it is rendered, and which tiles are durable."""

import fcntl
import json
import logging
import os
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, Self, TypeAlias

import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from zellige.errors import ConfigError, OutputError, ResumeError

from ..files.atomic import output_errors, partial_of, sync
from ..files.hostile import open_regular, shown
from .patches import PatchMaker

__all__ = ["Forms", "Journal", "journal_of"]

logger = logging.getLogger(__name__)

Forms: TypeAlias = Mapping[str, str] | None  # a layer's path to its form; None for a network without rewrites
_SECONDS = 1.0  # between two lines, because each waits until its tiles are durable; a kill costs about as much work
_LONGEST = 2**24  # bytes of a line; one of a second has a few thousand tiles
_ANEW = "Begin anew without --resume"
Side: TypeAlias = Annotated[int, Field(ge=1, le=4096)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class _First(_Strict):
    """The first line: the picture, which a resume must have too, and the way it is rendered, which it takes over."""

    journal: Literal[1]
    picture: dict[str, str | int | float | list[int] | None]
    block: tuple[Side, Side]
    batch: int = Field(ge=1, le=2**20)
    together: int = Field(ge=1, le=2**20)
    threads: int = Field(ge=1, le=2**12)
    forms: dict[str, str] | None
    metadata: dict[str, str]


class _Line(_Strict):
    """A further line: `tiles` tiles are durable, the new ones have `bytes` in a file, which they end at `end`."""

    tiles: int = Field(ge=1, le=2**62)
    bytes: list[int] = []
    end: int = Field(0, ge=0, le=2**62)


_LINE = TypeAdapter(_Line)


class Journal:
    """The journal of one picture, which `render_file` drives.

    It lies beside the picture under a fixed name until the picture is complete. While it is open, a lock of the
    operating system keeps other processes away from the unfinished picture; it ends with its process. The first line is
    written before the first tile. A further line follows about every second, where tiles that were composed together
    end, once the tiles that it counts are durable.

    Args:
        path: the picture.
        picture: everything that decides its pixels and is known before its file is opened, as values of JSON.
        resume: go on with an unfinished picture if there is one, and keep what is unfinished if this run fails too.
        forms: the forms of the layers that the maker runs.
        adopt: gives a maker that runs other forms.
    Attributes:
        resumed: whether an unfinished picture is gone on with. The rest then is its own, else empty.
        tiles: the number of its tiles that are durable, in row-major order.
        lengths: bytes of each of these tiles in a file.
        end: the place in the file where the last of them ends.
        block: micro patches of it, down and across, that are made at once.
        batch: its batch in blocks.
        together: the number of its tiles that are composed together.
        metadata: what its file says of itself.
    """

    def __init__(
        self,
        path: Path,
        picture: Mapping[str, Any],
        *,
        resume: bool = False,
        forms: Forms = None,
        adopt: Callable[[Forms], PatchMaker] | None = None,
    ) -> None:
        self.path, self.resume = path, resume
        self.resumed, self.tiles, self.end = False, 0, 0
        self.lengths = array("Q")
        self.block, self.batch, self.together = (0, 0), 0, 0
        self.metadata: Mapping[str, str] = {}
        self._picture, self._forms, self._adopt = dict(picture), forms, adopt
        self._file: BinaryIO | None = None
        self._first: _First | None = None
        self._ours = False  # what lies beside the picture was written or taken over by this run
        self._noted, self._chunk = 0.0, (1, 1)

    @contextmanager
    def opened(self, partial: Path, more: Mapping[str, Any]) -> Iterator[Self]:
        """Lock the journal and, to resume, read it; it is removed at the end, unless a resumable run fails.

        Args:
            partial: the unfinished file or folder.
            more: what the canvas decides of the file, as values of JSON.
        Raises:
            OutputError: another process renders this picture, or its folder cannot be written.
            ResumeError: the unfinished picture is another one, or its journal is damaged.
        """
        self._picture = json.loads(json.dumps(self._picture | dict(more), default=_plain))
        journal = journal_of(self.path)
        with output_errors(self.path):
            self._file = _locked(journal, self.path)
        failed = True
        try:
            if self.resume:
                self._recall(journal, partial)
            elif partial.exists() and os.fstat(self._file.fileno()).st_size:
                logger.warning("%s was unfinished and is begun anew; --resume would go on with it", self.path)
            yield self
            failed = False
        finally:
            with suppress(OSError):
                if not failed or (self._ours and not self.keeps) or not os.fstat(self._file.fileno()).st_size:
                    journal.unlink()  # before the lock is freed, so that whoever opens this path later gets a new file
                elif self._ours or self.resumed:
                    logger.warning(
                        "%s stays unfinished; the same command goes on behind tile %d", self.path, self.tiles
                    )
            self._file.close()

    @property
    def keeps(self) -> bool:
        """Whether a failure leaves what is unfinished for a resume."""
        return self.resume and self.tiles > 0

    @contextmanager
    def maker(self, maker: PatchMaker) -> Iterator[PatchMaker]:
        """Give the maker, with the forms and the number of threads that the unfinished picture was begun with."""
        if self._first is None:
            yield maker
            return
        if self._first.forms != (None if self._forms is None else dict(self._forms)):
            try:
                assert self._adopt is not None, "forms come with a way to adopt others"
                maker = self._adopt(self._first.forms)
            except ConfigError as error:
                raise ResumeError(f"{self.path} was begun with other rewrites, and {error}. {_ANEW}.") from None
        before = torch.get_num_threads()
        torch.set_num_threads(self._first.threads)
        try:
            yield maker
        finally:
            torch.set_num_threads(before)

    def clear(self) -> None:
        """Forget an older picture, before its unfinished file is replaced."""
        self._ours = True
        if not self.resumed:
            assert self._file is not None, "the journal is open"
            with output_errors(self.path):
                self._file.seek(0)
                self._file.truncate()
                os.fsync(self._file.fileno())

    def begin(
        self, block: tuple[int, int], batch: int, together: int, columns: int, metadata: Mapping[str, str],
        threads: int | None = None,
    ) -> None:  # fmt: skip
        """Write the first line, unless a picture is resumed: it has one.

        Args:
            block: micro patches, down and across, that are made at once.
            batch: blocks in a batch.
            together: tiles that are composed together.
            columns: tiles in a row.
            metadata: what the file says of itself.
            threads: of torch, in each process that makes patches; None for those of this process.
        """
        self._noted, self._chunk = time.monotonic(), (columns, together)
        if self.resumed:
            return
        first = _First(
            journal=1, picture=self._picture, block=block, batch=batch, together=together,
            threads=threads or torch.get_num_threads(), metadata=dict(metadata),
            forms=None if self._forms is None else dict(self._forms),
        )  # fmt: skip
        with output_errors(self.path):
            self._append(first)
            with suppress(OSError):  # some file systems cannot open a folder
                sync(journal_of(self.path).parent)

    def due(self, tiles: int) -> bool:
        """Whether it is time for a line that counts so many tiles: they end with tiles that were composed together."""
        columns, together = self._chunk
        return tiles % columns % together == 0 and time.monotonic() - self._noted >= _SECONDS

    def note(self, tiles: int, lengths: Sequence[int] = (), end: int = 0) -> None:
        """Write a line, when the caller has made the tiles durable; from any one thread.

        Args:
            tiles: the number of tiles that are durable now.
            lengths: in a file, bytes of each of them since the last line.
            end: in a file, the place where the last of them ends.
        """
        self._append(_Line(tiles=tiles, bytes=list(lengths), end=end))
        self.tiles, self._noted = tiles, time.monotonic()

    def _append(self, line: BaseModel) -> None:
        assert self._file is not None, "the journal is open"
        rest = memoryview(line.model_dump_json().encode() + b"\n")
        while rest:
            rest = rest[self._file.write(rest) :]
        os.fsync(self._file.fileno())

    def _recall(self, journal: Path, partial: Path) -> None:
        """Read the journal, and compare its picture with this one."""
        assert self._file is not None, "the journal is open"
        kept = self._read(journal, self._file)
        if self._first is None or not self.tiles or not partial.exists():
            self._first, self.tiles, self.end, self.lengths = None, 0, 0, array("Q")
            logger.warning("%s has no unfinished part to resume, so it is begun anew", self.path)
            return
        theirs = self._first.picture
        for key in {**theirs, **self._picture}:
            before, now = theirs.get(key), self._picture.get(key)
            if before != now:
                raise ResumeError(
                    f"{self.path} was begun with the {key} {_said(before)} and cannot go on with {_said(now)}. Give "
                    f"what it was begun with, or begin anew without --resume."
                )
        with output_errors(self.path):
            self._file.seek(kept)
            self._file.truncate()
        self.resumed, self.block = True, self._first.block
        self.batch, self.together = self._first.batch, self._first.together
        self.metadata = self._first.metadata

    def _read(self, journal: Path, file: BinaryIO) -> int:
        """Read all whole lines; returns their bytes. The last line may be cut, because its writer was killed."""
        kept = 0
        with output_errors(self.path), open(file.fileno(), "rb", closefd=False) as lines:
            for number in range(1, 2**62):
                line = lines.readline(_LONGEST)
                if not line.endswith(b"\n") and len(line) < _LONGEST:
                    return kept
                try:
                    if self._first is None:
                        self._first = _First.model_validate_json(line)
                    else:
                        self._take(_LINE.validate_json(line))
                except ValueError as error:  # a ValidationError is one
                    reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
                    raise ResumeError(
                        f"line {number} of {journal} is damaged ({reason}), so {self.path} cannot be resumed. {_ANEW}."
                    ) from None
                kept += len(line)
        raise AssertionError("a file ends")

    def _take(self, line: _Line) -> None:
        if line.tiles <= self.tiles or (line.bytes and len(line.bytes) != line.tiles - len(self.lengths)):
            raise ValueError("the tiles are not counted up")
        if line.bytes and (min(line.bytes) < 1 or line.end - sum(line.bytes) < (self.end or 1)):
            raise ValueError("the tiles do not end where they must")
        if self.end and line.end != self.end + sum(line.bytes):
            raise ValueError("the tiles are not where the last line ended")
        self.lengths.extend(line.bytes)
        self.tiles, self.end = line.tiles, line.end


def journal_of(path: Path) -> Path:
    """The path of a picture's journal."""
    return partial_of(path, "journal")


def _plain(number: Any) -> Any:
    """A number of numpy as one of Python."""
    return number.item()


def _said(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text[:12] if len(text) == 64 and text.isalnum() else shown(text).strip("'\"")


def _locked(journal: Path, path: Path) -> BinaryIO:
    """Open the journal, locked for this process; a file system without locks leaves it unlocked."""
    while True:
        file = open_regular(journal, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise OutputError(
                f"another process is rendering {path}; wait until it ends, or choose another name."
            ) from None
        except OSError:
            return file
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(journal)):
                return file
        file.close()  # the process that held the lock has removed its file meanwhile
