"""The process that reads a foreign file: from standard input into a folder, within bounds of memory and time.

`python -m` runs it. It prints one line of JSON: the file's format, or the fault and its reason.
"""

import json
import os
import re
import resource
import sys
import warnings
import zipfile
from pathlib import Path
from typing import BinaryIO

import safetensors.torch
import torch
from torch import Tensor

from zellige.errors import CheckpointError

from ...files.kinds import PICKLE, SAFETENSORS, START_BYTES, ZIPPED, kind_of
from .. import faults
from .content import Value, flattened
from .stand_ins import SAFE, Unpickler

__all__ = ["TENSORS", "VALUES", "read_content"]

TENSORS, VALUES = "tensors.safetensors", "values.json"  # the results' files; tensors have numbers in place of names
# torch's older files begin with a pickled number that tells them from other pickles.
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_SPARE = 2**29  # bytes of memory beyond a multiple of the file's size
_COPIES = 6  # of the file: its bytes, the numbers in it, and copies for the results
_SECONDS = 60  # of computing, and one more for each MiB
_GLOBAL = re.compile(r"(?:GLOBAL|global|class) `?([\w.]+)`? was not an allowed")


def read_content(file: BinaryIO, size: int) -> tuple[str, dict[str, Tensor], dict[str, Value]]:
    """The format, tensors and values of a foreign file.

    Args:
        file: at its beginning; it can seek.
        size: bytes.
    Raises:
        CheckpointError: the file is of another kind or damaged, or it names a class or function that is not on the
            list. No file content raises anything else, within the bounds of memory and time.
    """
    start = file.read(START_BYTES)
    file.seek(0)
    kind = kind_of(start)
    try:
        if kind is SAFETENSORS:
            return "safetensors", safetensors.torch.load(file.read()), {}
        if kind is ZIPPED:
            _refuse_packed(file, size)
        with warnings.catch_warnings(), torch.serialization.safe_globals(SAFE):
            warnings.simplefilter("ignore")  # of storages that torch keeps for such files alone
            if kind is ZIPPED or start.startswith(_OLD_TORCH):
                return "torch file", *flattened(torch.load(file, map_location="cpu", weights_only=True))
            if kind is PICKLE:
                return "pickle", *flattened(Unpickler(file).load())
    except CheckpointError:
        raise
    except (MemoryError, RecursionError, OverflowError) as error:
        raise faults.ReadingLimitError(_too_much(type(error).__name__)) from None
    except Exception as error:  # a damaged pickle may fail anywhere
        raise _fault(error) from None
    what = "empty" if not start else kind.title if kind else "of no format that weights come in"
    raise faults.OtherFormatError(f"it is {what}; name a torch file, a pickle or a safetensors file of weights")


def _refuse_packed(file: BinaryIO, size: int) -> None:
    """Refuse an archive that torch did not write, or that unpacks to more than it has."""
    try:
        entries = zipfile.ZipFile(file).infolist()
    except (zipfile.BadZipFile, EOFError):
        raise faults.TruncatedFileError("its end is missing or damaged; copy or download it again") from None
    names = {Path(entry.filename).name for entry in entries}
    if "constants.pkl" in names:
        raise faults.ForeignContentError("it is a TorchScript program; name the file of the weights alone")
    if "data.pkl" not in names:
        raise faults.OtherFormatError("it is a ZIP archive that torch did not write; unpack it, and name the weights")
    if sum(entry.file_size for entry in entries) > size:
        raise faults.ReadingLimitError(_too_much("it is packed, as torch packs no weights"))
    file.seek(0)


def _fault(error: Exception) -> CheckpointError:
    """The fault that an exception of a reader means."""
    text = " ".join(str(error).split())
    if found := _GLOBAL.search(text):
        return faults.ForbiddenNameError(
            f"it names {found[1][:120]!r}, which is not on the closed list of names that a file of weights may have"
        )
    if "allocate memory" in text or "alloc" in text:
        return faults.ReadingLimitError(_too_much("memory"))
    if isinstance(error, EOFError) or "Ran out of input" in text or "truncated" in text:
        return faults.TruncatedFileError("it ends before its content does; copy or download it again")
    return faults.ForeignContentError(
        f"it is damaged or holds more than weights ({type(error).__name__}: {text[:120]}); copy or download it again"
    )


def _too_much(what: str) -> str:
    return f"it asks for more than its size allows ({what}); it is damaged, or made to do harm"


def _bound(size: int) -> None:
    """Bound this process by the file's size, on top of what torch takes."""
    seconds = _SECONDS + (size >> 20)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError, IndexError):  # no Linux
        return
    most = pages * os.sysconf("SC_PAGE_SIZE") + _COPIES * size + _SPARE
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _write(out: Path, tensors: dict[str, Tensor], values: dict[str, Value]) -> None:
    numbered = {str(k): tensor.contiguous().clone() for k, tensor in enumerate(tensors.values())}
    safetensors.torch.save_file(numbered, out / TENSORS)
    (out / VALUES).write_text(json.dumps({"names": list(tensors), "values": values}))


def main(out: Path) -> None:
    """Read standard input into files in a folder."""
    file, size = sys.stdin.buffer, os.fstat(0).st_size
    torch.set_num_threads(1)
    _bound(size)
    file.seek(0)  # the parent may have read it
    try:
        container, tensors, values = read_content(file, size)
        _write(out, tensors, values)
        answer = {"container": container}
    except CheckpointError as error:
        answer = {"fault": type(error).__name__, "reason": str(error)}
    except (MemoryError, RuntimeError) as error:
        answer = {"fault": "ReadingLimitError", "reason": _too_much(type(error).__name__)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
