"""Copies runtimes that hold a session or an engine: a copy opens the file again."""

from pathlib import Path

from zellige.errors import TaskError

__all__ = ["file_to_reopen"]


def file_to_reopen(model: Path | bytes, name: str) -> Path:
    """The file that a copy of a runtime opens.

    Args:
        model: the file that the runtime was opened with, or any bytes if it was opened with bytes.
        name: the runtime's name.
    Raises:
        TaskError: the runtime was opened with bytes.
    """
    if isinstance(model, Path):
        return model
    raise TaskError(
        f"the runtime {name!r} holds a network that was exported in memory, and cannot be copied or pickled; copy the "
        "model, which exports it again, or give the runtime a .onnx file"
    )
