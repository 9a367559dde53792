"""Draws the results of all tasks of a model as one picture.

    python -m zellige.benchmarks.sheet emoji --set translate.child=0 --out emoji.png

A column is an image: a given one, or a held-out picture of the model's training data. Rows are the images, new ones
under a seed, and the results of each task. A task that reads a second image gets the next one.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zellige.errors import TaskError

from ..engine.files.pictures import write_png
from ..engine.library import load_checkpoint
from ..engine.systems import system_of
from ..engine.systems.system import Task
from ..training.systems import held_out_images

__all__ = ["sheet"]

Pixels = npt.NDArray[np.uint8]
_GAP = 2  # pixels between pictures


def sheet(model: Any, images: Any, options: dict[str, dict[str, Any]] | None = None, seed: int = 0) -> Pixels:
    """Lay the results of every task for some images below them.

    Args:
        model: the model.
        images: files, or uint8 [N, H, W, 3].
        options: options of the tasks, by the names of task and option.
        seed: of new images.
    Returns:
        uint8 [H, W, 3], N pictures a row with gaps between them; tables are left out, and so are panoramas and results
        of another size than the model's.
    Raises:
        TaskError: a task needs an option that is not given.
    """
    side = model.size
    rows: list[list[Pixels]] = []
    for task in system_of(model.system).tasks:
        chosen = (options or {}).get(task.name, {})
        if task.name == "generate":
            made = model.generate(len(images), seed, **_checked(task, chosen))
            rows.insert(0, list(made))
        elif task.reads and not task.table:
            rows += _of_images(model, task, images, _checked(task, chosen))
    sources = [source for task in system_of(model.system).tasks for source in task.reads]
    shown = next((source for source in sources if source.many and not source.together), None)
    if shown is not None:
        rows.insert(0, list(model.read(shown.name, images).pixels))
    return _laid(rows, side)


def _checked(task: Task, chosen: dict[str, Any]) -> dict[str, Any]:
    missing = [name for name, field in task.options.model_fields.items() if field.is_required() and name not in chosen]
    if missing:
        raise TaskError(f"{task.name} needs {missing[0]}; give it with --set {task.name}.{missing[0]}=VALUE")
    return task.options(**chosen).model_dump()


def _of_images(model: Any, task: Task, images: Any, chosen: dict[str, Any]) -> list[list[Pixels]]:
    """Return a row for each kind of picture that a task makes."""
    columns = []
    for index in range(len(images)):
        following = [images[(index + 1) % len(images)]]
        given = {source.name: [images[index]] if source.many else following for source in task.reads}
        made = getattr(model, task.name)(**given, **chosen)
        columns.append([part[0] for part in (vars(made).values() if len(task.makes) > 1 else [made])])
    return [list(row) for row in zip(*columns, strict=True) if row[0].shape[:2] == model.size]


def _laid(rows: list[list[Pixels]], size: tuple[int, int]) -> Pixels:
    pitch = size[0] + _GAP, size[1] + _GAP
    canvas = np.full((len(rows) * pitch[0] - _GAP, len(rows[0]) * pitch[1] - _GAP, 3), 255, np.uint8)
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            colours = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=-1)
            top, left = row * pitch[0], column * pitch[1]
            canvas[top : top + size[0], left : left + size[1]] = colours
    return canvas


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser("python -m zellige.benchmarks.sheet", description="Draw every task of a model.")
    parser.add_argument("model", help="name or path")
    parser.add_argument("images", nargs="*", help="image files; none takes held-out pictures of the training data")
    parser.add_argument("--out", type=Path, required=True, help="the PNG file")
    parser.add_argument("--count", type=int, default=10, help="held-out pictures")
    parser.add_argument("--set", action="append", default=[], help="TASK.OPTION=VALUE; may be repeated")
    given = parser.parse_args()
    options: dict[str, dict[str, Any]] = {}
    for text in given.set:
        name, _, value = text.partition("=")
        task, _, option = name.partition(".")
        options.setdefault(task, {})[option] = json.loads(value)
    model = load_checkpoint(given.model, "cpu")
    images = given.images or held_out_images(model, given.count)
    write_png(given.out, sheet(model, images, options))


if __name__ == "__main__":
    main()
