"""The log of a run: one JSON object a line, and TensorBoard if it is installed."""

import json
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Any

from ..engine.files.atomic import AtomicFile, output_errors
from .run_folder import RunFolder

__all__ = ["Log", "forget_after"]

logger = logging.getLogger(__name__)


@contextmanager
def _quiet_board() -> Iterator[None]:
    """Keep TensorBoard's thread from printing the errors of a disk, which it also hands to the next call."""
    before, running = threading.excepthook, set(threading.enumerate())

    def is_board(thread: threading.Thread | None) -> bool:
        return thread not in running and type(thread).__module__.startswith("tensorboard.")

    def hook(fault: threading.ExceptHookArgs) -> None:
        if not (isinstance(fault.exc_value, OSError) and is_board(fault.thread)):
            before(fault)

    threading.excepthook = hook
    try:
        yield
    finally:
        for thread in filter(is_board, threading.enumerate()):
            thread.join(5)  # seconds; it has failed, or was told to end
        threading.excepthook = before


class Log:
    """The open log of a run.

    Args:
        folder: folder of the run.
        step: number of steps that are done already.
    """

    def __init__(self, folder: RunFolder, step: int) -> None:
        self.folder, self.step = folder, step

    def __enter__(self) -> "Log":
        self._open()
        self.board: Any = None
        with ExitStack() as stack, suppress(ImportError):
            from torch.utils.tensorboard import SummaryWriter

            stack.enter_context(_quiet_board())
            with output_errors(self.folder.path):
                # Steps after the last checkpoint will be done and logged again.
                self.board = SummaryWriter(str(self.folder.path), purge_step=self.step + 1)
            self._end = stack.pop_all()
        return self

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        """Write a line at once.

        Raises:
            OutputError: the disk is full, or the file cannot be written for another reason.
        """
        with output_errors(self.folder.log):
            print(json.dumps({"step": step, **values}, allow_nan=False), file=self.file, flush=True)
        if self.board is not None:
            with output_errors(self.folder.path):  # TensorBoard's thread may report an earlier error
                for name, value in values.items():
                    self.board.add_scalar(name, value, step)

    def back_to(self, step: int) -> None:
        """Drop the lines of later steps."""
        self.file.close()
        forget_after(self.folder, step)
        self._open()

    def _open(self) -> None:
        with output_errors(self.folder.log):
            self.file = self.folder.log.open("a", encoding="utf-8")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Closing writes bytes that a full disk refused before; that error was reported then.
        with suppress(OSError):
            self.file.close()
        if self.board is not None:
            with self._end, suppress(OSError):
                self.board.close()


def forget_after(folder: RunFolder, step: int) -> None:
    """Drop log lines of steps that will be done again, and set damaged lines aside.

    A last line that a crash left half-written is dropped. Other lines that are no JSON object with a step go to
    `log.jsonl.damaged`, and a warning says so.

    Raises:
        OutputError: the log cannot be written; it stays as it was.
    """
    if not folder.log.exists():
        return
    kept, damaged = list[bytes](), list[bytes]()
    with output_errors(folder.log), folder.log.open("rb") as lines:
        for line in lines:
            reached = _step_of(line)
            if reached is not None and reached <= step:
                kept.append(line.rstrip(b"\r\n") + b"\n")
            elif reached is None and line.endswith(b"\n"):
                damaged.append(line)
    if damaged:
        with output_errors(folder.damaged), folder.damaged.open("ab") as aside:
            aside.writelines(damaged)
        logger.warning(
            "%d lines of %s cannot be read and are set aside in %s", len(damaged), folder.log, folder.damaged.name
        )
    with AtomicFile(folder.log) as file, output_errors(folder.log):
        file.writelines(kept)


def _step_of(line: bytes) -> int | None:
    """Return the step of a line, or None if it is no JSON object with a step."""
    try:
        values = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    step = values.get("step") if isinstance(values, dict) else None
    return step if type(step) is int and step >= 0 else None
