"""Overlaps the work of a device with reading its results, and guards reused buffers against a second run."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from zellige.errors import TaskError

__all__ = ["Turn", "overlapped"]

Job = TypeVar("Job")
Result = TypeVar("Result")


def overlapped(
    jobs: Iterable[Job], submit: Callable[[int, Job], None], collect: Callable[[int, Job], Result]
) -> Iterator[tuple[Job, Result]]:
    """Submit job k + 1 before waiting for the result of job k.

    At most two jobs are under way, because job k + 2 is submitted only when the caller has finished with result k. So
    two sets of buffers that take turns suffice for any number of jobs.

    Args:
        jobs: the jobs in order.
        submit: starts a job and returns at once; called with the job's number and the job.
        collect: waits for a job and returns its result, which stays valid until the caller asks for the next one.
    """
    before: tuple[int, Job] | None = None
    for number, job in enumerate(jobs):
        submit(number, job)
        if before is not None:
            yield before[1], collect(*before)
        before = number, job
    if before is not None:
        yield before[1], collect(*before)


class Turn:
    """Lets one run at a time use the buffers; other threads wait, and a second run in the same thread is refused."""

    def __init__(self) -> None:
        self._lock, self._owner = threading.Lock(), 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold the turn while the block runs.

        Raises:
            TaskError: this thread holds the turn already.
        """
        if self._owner == threading.get_ident():
            raise TaskError("this runtime is amid another run, whose buffers it needs; read that run to its end first")
        with self._lock:
            self._owner = threading.get_ident()
            try:
                yield
            finally:
                self._owner = 0
