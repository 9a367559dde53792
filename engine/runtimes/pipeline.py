"""The order of work that keeps a device busy while results are read, and the guard of buffers that are used again."""

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
    """Submit job k + 1 before the result of job k is waited for.

    At most two jobs are under way, and job k + 2 is submitted when the caller asks for what follows result k; so two
    sets of buffers, used in turn, suffice for any number of jobs.

    Args:
        jobs: in order.
        submit: starts a job and returns at once; called with its number and the job.
        collect: waits for it and returns the result, which is the caller's until it asks for the next one.
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
    """One run at a time: other threads wait; a run amid a run of the same thread, which never ended, is refused."""

    def __init__(self) -> None:
        self._lock, self._owner = threading.Lock(), 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold the turn.

        Raises:
            TaskError: this thread holds it.
        """
        if self._owner == threading.get_ident():
            raise TaskError("this runtime is amid another run, whose buffers it needs; read that run to its end first")
        with self._lock:
            self._owner = threading.get_ident()
            try:
                yield
            finally:
                self._owner = 0
