"""A picture of what a OneGAN does with scenes that it was not trained on.

    python -m zellige.benchmarks.task_sheet emoji --out emoji.png

Columns are scenes. Rows are the scene, its reconstruction, the foreground, the mask, the mask by a threshold, the whole
background, the scene in another class's style, its object on the next scene's background, and two new images of its
classes.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..engine.files.pictures import write_png
from ..engine.library import load_task
from ..engine.systems.onegan.model import OneGan
from ..training.data.sources import open_scenes
from ..training.evaluate import trained_on
from ..training.systems.onegan.evaluate import FIRST

__all__ = ["task_sheet"]

Pixels = npt.NDArray[np.uint8]
_GAP = 2  # pixels between pictures


def task_sheet(model: OneGan, scenes: Pixels, child: int, seed: int = 0) -> Pixels:
    """Lay every task's results for some scenes below them.

    Args:
        model: whose tasks they are.
        scenes: [N, R, R, 3].
        child: the class whose style they are translated to.
        seed: of new images.
    Returns:
        uint8 [H, W, 3], ten rows of N pictures with gaps between them.
    """
    parts = model.reconstruct(scenes)
    masks = np.stack(model.segment(scenes))
    like = model.like(scenes, 2, seed)
    rows = [
        scenes, parts.image, parts.foreground, _grey(parts.mask), _grey(masks), model.inpaint(scenes),
        model.translate(scenes, child), model.recompose(scenes, np.roll(scenes, -1, 0)), like[:, 0], like[:, 1],
    ]  # fmt: skip
    return _laid([list(row) for row in rows])


def _grey(masks: Pixels) -> Pixels:
    return np.repeat(masks[..., None], 3, axis=-1)


def _laid(rows: list[list[Pixels]]) -> Pixels:
    side = rows[0][0].shape[0]
    pitch = side + _GAP
    sheet = np.full((len(rows) * pitch - _GAP, len(rows[0]) * pitch - _GAP, 3), 255, np.uint8)
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            sheet[row * pitch : row * pitch + side, column * pitch : column * pitch + side] = picture
    return sheet


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser("python -m zellige.benchmarks.task_sheet", description="Draw a OneGAN's tasks.")
    parser.add_argument("model", help="name or path")
    parser.add_argument("--out", type=Path, required=True, help="the PNG file")
    parser.add_argument("--first", type=int, default=0, help="number of the first held-out scene")
    parser.add_argument("--count", type=int, default=10, help="scenes")
    parser.add_argument("--child", type=int, default=0, help="class whose style the scenes are translated to")
    given: Any = parser.parse_args()
    model = load_task("segment", given.model, "cpu")
    held_out = open_scenes(trained_on(model), model.size, "held-out", 0)
    scenes = np.stack([held_out.scene(FIRST + given.first + k).image for k in range(given.count)])
    write_png(given.out, task_sheet(model, scenes, given.child))


if __name__ == "__main__":
    main()
