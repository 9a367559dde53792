"""The folder of a run: the names of its files, and the check that nothing else has these names."""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from zellige.errors import OutputError, TrainingError

from ..engine.files.atomic import PARTIAL

__all__ = ["RunFolder", "regular"]


def regular(path: Path) -> bool:
    """Tell whether there is a file of this name.

    Raises:
        TrainingError: the name belongs to a folder, or to a pipe, which would block when it is opened.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise TrainingError(f"{path} cannot be looked at ({error.strerror}); check its name and permissions") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise TrainingError(f"{path} is {kind} and should be a file of the run; move it away or choose another --out")
    return True


@dataclass(frozen=True)
class RunFolder:
    """Names of the files of a run.

    Args:
        path: the folder.
    """

    path: Path

    @property
    def state(self) -> Path:
        """The state, with everything that the next step depends on."""
        return self.path / "state.safetensors"

    @property
    def model(self) -> Path:
        """The model, which `zellige.load` opens."""
        return self.path / "model.safetensors"

    @property
    def log(self) -> Path:
        """The log, with one JSON object a line."""
        return self.path / "log.jsonl"

    @property
    def damaged(self) -> Path:
        """Lines of the log that could not be read."""
        return self.path / "log.jsonl.damaged"

    def sheet(self, step: int) -> Path:
        """Return the path of the samples after a step."""
        return self.path / "samples" / f"{step:07d}.png"

    def holds_run(self) -> bool:
        """Tell whether the folder holds the state of a run.

        Raises:
            TrainingError: a folder, a pipe or a device has the name of one of the run's files.
        """
        for path in (self.model, self.log, self.damaged):
            regular(path)
        return regular(self.state)

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Make the folder, keep other runs out of it, and remove unfinished files that a killed process left there.

        Raises:
            OutputError: the folder cannot be made or changed.
            TrainingError: another run is writing there.
        """
        with ExitStack() as stack:
            try:
                (self.path / "samples").mkdir(parents=True, exist_ok=True)
                stack.enter_context(self._held())
                for pattern in (PARTIAL, f"samples/{PARTIAL}"):
                    for path in self.path.glob(pattern):
                        path.unlink(missing_ok=True)
            except OSError as error:
                raise OutputError(
                    f"{self.path} cannot be made a folder for the run: {error.strerror}; choose another --out"
                ) from error
            yield

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Lock the folder itself, where the file system has locks."""
        folder = os.open(self.path, os.O_RDONLY)
        try:
            with suppress(OSError):
                try:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise TrainingError(
                        f"another run is writing to {self.path}; wait until it ends, or choose another --out"
                    ) from None
            yield
        finally:
            os.close(folder)  # which frees the lock; the system does it for a process that is killed
