"""Progress bars on a terminal; nothing when the output is piped."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Advance", "progress"]

Advance = Callable[[int, int], None]  # takes how much is done, and how much there is


@contextmanager
def progress(title: str, status: Callable[[float], str]) -> Iterator[Advance]:
    """A bar with the remaining time and a status.

    Args:
        title: what is going on.
        status: from how much was done in a second to a few words.
    Yields:
        what is called with the progress.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None, status="")

        def advance(done: int, total: int) -> None:
            elapsed = max(bar.tasks[task].elapsed or 0.0, 1e-3)
            bar.update(task, completed=done, total=total, status=status(done / elapsed))

        yield advance
