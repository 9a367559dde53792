"""Opens a foreign file: a process of its own reads it, and this one takes tensors and plain values from the results."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch

from zellige.errors import CheckpointError

from ...files.hostile import IrregularFileError, open_regular
from .. import faults
from .content import Content
from .reading import TENSORS, VALUES

__all__ = ["open_foreign"]

_SECONDS = 180  # on the clock, with two more for each MiB; the process itself counts its computing
_ROOM = "the file is damaged or made to do harm, or this machine has too little memory or space for temporary files"


def open_foreign(path: str | os.PathLike[str], seconds: float | None = None) -> Content:
    """Read the tensors and plain values of a file that another program wrote, without running what it carries.

    Args:
        path: a torch file, a pickle or a safetensors file.
        seconds: the longest that reading may take; None lets the file's size decide.
    Returns:
        its content; tensors are mapped from a file that is removed already.
    Raises:
        CheckpointError: the file cannot be opened, is of another kind, damaged, or holds more than weights; or its
            content asks for more memory, depth or time than its size allows. The subclass names the fault.
    """
    path = Path(path)
    try:
        with open_regular(path) as file, tempfile.TemporaryDirectory(prefix="zellige-") as folder:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # it has readinto
            container = _read(path, file, Path(folder), seconds)
            kept = json.loads((Path(folder) / VALUES).read_text())
            numbered = safetensors.torch.load_file(Path(folder) / TENSORS)
    except IrregularFileError as error:
        raise faults.NotAFileError(f"{path} cannot be read: {error.strerror}; name a file of weights.") from None
    except (FileNotFoundError, NotADirectoryError):
        raise faults.MissingFileError(f"{path} does not exist; name a file of weights that does.") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL character
        reason = getattr(error, "strerror", None) or error
        raise faults.UnreadableFileError(f"{path} cannot be read ({reason}); check its name and permissions.") from None
    tensors = {name: numbered[str(number)] for number, name in enumerate(kept["names"])}
    return Content(path, container, sha256, tensors, kept["values"])


def _read(path: Path, file: BinaryIO, folder: Path, seconds: float | None) -> str:
    """Let the process read the file into the folder; the file's format."""
    size = os.fstat(file.fileno()).st_size
    limit = _SECONDS + (size >> 19) if seconds is None else seconds
    command = [sys.executable, "-P", "-m", f"{__package__}.reading", str(folder)]
    # The modules are found where this process has found them.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(os.path.abspath(place) for place in sys.path)}
    try:
        ended = subprocess.run(command, stdin=file, capture_output=True, timeout=limit, check=False, env=environment)
    except subprocess.TimeoutExpired:
        raise faults.ReadingLimitError(f"{path}: reading it took more than {limit:g} seconds; {_ROOM}.") from None
    answer = _answer(ended.stdout)
    if "fault" in answer:
        fault: type[CheckpointError] = getattr(faults, answer["fault"])
        raise fault(f"{path} cannot be converted: {answer['reason']}.")
    if ended.returncode or "container" not in answer:
        raise faults.ReadingLimitError(f"{path}: its reader ended with status {ended.returncode}; {_ROOM}.")
    return str(answer["container"])


def _answer(said: bytes) -> dict[str, Any]:
    """The object in the last line that the process printed; empty if it was stopped before."""
    try:
        found = json.loads(said.splitlines()[-1])
    except (IndexError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
