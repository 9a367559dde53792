"""Progress bars on a terminal, which are left out when the output is piped."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Advance", "progress"]

Advance = Callable[[int, int], None]  # takes the amount that is done, and the whole amount


@contextmanager
def progress(title: str, status: Callable[[float], str]) -> Iterator[Advance]:
    """Show a bar with the remaining time and a status.

    Args:
        title: the name of the work.
        status: makes a few words of the amount that was done in a second.
    Yields:
        the function to call with the progress.
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
