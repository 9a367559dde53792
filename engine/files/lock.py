"""A lock that lets one process at a time run a block."""

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .hostile import open_regular

__all__ = ["alone"]

logger = logging.getLogger(__name__)
_POLL = 0.05  # seconds


@contextmanager
def alone(lock: Path, expires: float) -> Iterator[None]:
    """Run the block while no other process holds the lock; the lock's file is removed afterwards.

    The system frees the lock of a process that ends, however it ends. The block runs unlocked if the file system cannot
    lock or write files, or if another process has held the lock for longer than `expires`, because a process that
    hangs must not stop others.

    Args:
        lock: the lock's file, made if it is missing.
        expires: seconds.
    """
    held = _taken(lock, expires)
    try:
        yield
    finally:
        if held is not None:
            with suppress(OSError):
                lock.unlink()  # before the lock is freed, so that a process that opens this path later gets a new file
            held.close()


def _taken(lock: Path, expires: float) -> BinaryIO | None:
    """The lock's file, locked; None if another process held it too long, or if files cannot be locked."""
    while True:
        try:
            file = open_regular(lock, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            logger.info("%s is no lock: %s", lock, error.strerror or error)
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.utime(file.fileno())
            if os.path.samestat(os.fstat(file.fileno()), os.stat(lock)):
                return file
            file.close()  # the process that held the lock has removed its file meanwhile
        except BlockingIOError:
            age = time.time() - os.fstat(file.fileno()).st_mtime
            file.close()
            if age > expires:
                logger.warning("%s has been held for %.0f s, and is not waited for any longer", lock, age)
                return None
            time.sleep(_POLL)
        except FileNotFoundError:
            file.close()
        except OSError:  # a file system without locks
            file.close()
            return None
