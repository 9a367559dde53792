"""Writes a finished picture again with a part of it rendered anew, within a memory budget."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from zellige.errors import DataError, OutputError

from .canvas import format_of, open_canvas
from .canvas.canvas import Grid, Pixels
from .canvas.finished import Finished, opened
from .edits import overlap
from .memory import measured_peak
from .patches import PatchMaker
from .plan import Plan, block_bytes, plan_render
from .render import closed
from .renderer import Renderer
from .scene import LatentField, Region, Scene

__all__ = ["rewrite_file"]

logger = logging.getLogger(__name__)


def rewrite_file(
    maker: PatchMaker,
    scene: Scene,
    before: LatentField,
    changed: Sequence[Region],
    older: Path,
    path: Path,
    *,
    budget: int,
    whole: Region,
    metadata: Mapping[str, str],
    quality: int | None = None,
    name: str = "the model",
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Render the changed pixels of a scene and copy all others from a finished picture.

    Tiles without changed pixels are copied as they are in the file: in TIFF and Zarr their bytes, in PNG and Deep Zoom
    their pixels. In other tiles only the changed pixels are rendered. With JPEG these tiles are rendered as a whole
    and compressed once, because pixels that are read from them would be compressed twice.

    First the pixels of one tile are rendered as they were before, and compared with the file. A warning says if they
    differ.

    Args:
        maker: the generator of the patches.
        scene: the picture with its changes.
        before: its latents before the changes.
        changed: the pixels of the scene that may differ, as rectangles.
        older: the finished picture.
        path: the file to write, of the same format; it may be the older one, which is replaced when it is complete.
        budget: bytes, as of `render_file`.
        whole: the file's part of the scene.
        metadata: what the new file says of itself.
        quality: of JPEG; None takes the default.
        name: the model's name, for errors.
        advance: called with (pixels done, pixels in all).
    Returns:
        a report: width, height, tiles, tiles_rendered, pixels_rendered, pixels_differing (of the compared ones; None
        with JPEG), block, batch, seconds, memory_budget_bytes, predicted_memory_bytes and peak_memory_bytes.
    Raises:
        DataError: the older picture cannot be read, has another size, or was written by another program.
        BudgetError: the budget is too small for one patch.
        OutputError: the file cannot be written, or has another format.
        ValuesError: the model gives values that are not finite.
    """
    if format_of(path) != format_of(older):
        raise OutputError(f"{path} must have the format of {older}, whose tiles are copied; name it *{older.suffix}.")
    changed = [
        Region(part.top - whole.top, part.left - whole.left, part.height, part.width)
        for part in (overlap(region, whole) for region in changed)
        if part is not None
    ]
    with opened(older) as finished:
        if (finished.width, finished.height) != (whole.width, whole.height):
            raise DataError(
                f"{older} has {finished.width}x{finished.height} pixels, and was written with "
                f"{whole.width}x{whole.height}; another program has changed it, so render it again"
            )
        canvas = open_canvas(
            path, whole.width, whole.height, patch=scene.patch, compression=finished.compression,
            quality=quality if finished.lossy else None, cyclic=closed(scene, whole), metadata=metadata,
            tile=finished.tile,
        )  # fmt: skip
        canvas.resident_bytes += finished.resident_bytes
        plan, together, scene = plan_render(maker, scene, canvas, budget, name, whole)
        grid = Grid(whole.height, whole.width, canvas.tile)
        rewriting = _Rewriting(maker, scene, whole, finished, changed, plan, budget, name)
        if maker.device.type == "cpu":  # where getting a graph ready does not count
            rewriting.prepare()
        began, done, tiles = time.perf_counter(), 0, 0
        with measured_peak(maker.device, budget, whole=maker.graph) as peak:
            if maker.device.type == "cuda":
                rewriting.prepare()
            runs = list(_touched(grid, changed, together))
            differing = None if finished.lossy or not runs else rewriting.compare(before, grid, runs[0][0])
            with canvas:
                for first, count in _filled(runs, grid):
                    region = _region(grid, first, abs(count))
                    if count < 0:
                        for _ in range(-count):
                            canvas.keep(finished)
                    else:
                        pixels = rewriting.made(region)
                        for k in range(count):
                            left = k * canvas.tile[1]
                            canvas.write(pixels[:, left : left + canvas.tile[1]])
                        tiles += count
                    done += region.width * region.height
                    peak.look()
                    advance(done, whole.width * whole.height)
    return {
        "width": whole.width,
        "height": whole.height,
        "tiles": grid.tiles,
        "tiles_rendered": tiles,
        "pixels_rendered": rewriting.rendered,
        "pixels_differing": differing,
        "block": list(scene.block),
        "batch": plan.batch,
        "seconds": time.perf_counter() - began,
        "memory_budget_bytes": budget,
        "predicted_memory_bytes": plan.predicted_bytes,
        "peak_memory_bytes": peak.bytes,
    }


class _Rewriting:
    """Makes the pixels of the tiles that change."""

    def __init__(
        self,
        maker: PatchMaker,
        scene: Scene,
        whole: Region,
        finished: Finished,
        changed: Sequence[Region],
        plan: Plan,
        budget: int,
        name: str,
    ) -> None:
        self._scene, self._whole, self._finished, self._changed = scene, whole, finished, changed
        self._maker, self._plan, self._budget = maker, plan, budget
        self._renderer = Renderer(maker, plan.batch * scene.block[0] * scene.block[1], name, budget, reuse=True)
        self.rendered = 0

    def prepare(self) -> None:
        """Get a graph ready for batches of one size."""
        maker, scene, batch = self._maker, self._scene, self._plan.batch
        if maker.graph:
            rest = self._plan.predicted_bytes - block_bytes(maker, scene.block, scene.cells, batch)
            limit = self._budget - rest if maker.device.type == "cuda" else None
            self._renderer.run, batch = maker.prepared(scene.block, scene.cells, batch, limit)
            self._renderer.batch = batch * scene.block[0] * scene.block[1]

    def compare(self, before: LatentField, grid: Grid, index: int) -> int:
        """The number of pixels of a tile that are not those of the scene as it was."""
        region = _region(grid, index, 1)
        made, there = self._render(replace(self._scene, latents=before), region), self._finished.pixels(region)
        away = np.abs(made.astype(np.int16) - there).max(axis=2)
        count = int((away > 0).sum())
        if count:
            logger.warning(
                "%s is not what its scene gives here: %d of %d pixels of a tile differ, by up to %d levels, as from "
                "another machine or version. The border of the edit may show.",
                self._finished.path, count, away.size, away.max(),
            )  # fmt: skip
        return count

    def made(self, region: Region) -> Pixels:
        """The pixels of a region of the file with the changes."""
        if self._finished.lossy:
            self.rendered += region.width * region.height
            return self._render(self._scene, region)
        pixels = self._finished.pixels(region)
        for rectangle in self._changed:
            part = overlap(rectangle, region)
            if part is not None:
                top, left = part.top - region.top, part.left - region.left
                pixels[top : top + part.height, left : left + part.width] = self._render(self._scene, part)
                self.rendered += part.width * part.height
        return pixels

    def _render(self, scene: Scene, region: Region) -> Pixels:
        part = replace(region, top=region.top + self._whole.top, left=region.left + self._whole.left)
        return self._renderer.region(scene, part).cpu().numpy()


def _touched(grid: Grid, changed: Sequence[Region], together: int) -> Iterator[tuple[int, int]]:
    """The first tile, and the number of tiles, of runs of up to `together` tiles of a row that have changed pixels."""
    (height, width), columns = grid.tile, grid.columns
    places = sorted(
        {
            row * columns + column
            for part in changed
            for row in range(part.top // height, (part.top + part.height - 1) // height + 1)
            for column in range(part.left // width, (part.left + part.width - 1) // width + 1)
        }
    )
    for _, group in groupby(enumerate(places), key=lambda pair: (pair[1] - pair[0], pair[1] // columns)):
        run = [place for _, place in group]
        for start in range(0, len(run), together):
            yield run[start], len(run[start : start + together])


def _filled(runs: Sequence[tuple[int, int]], grid: Grid) -> Iterator[tuple[int, int]]:
    """The runs, and between them the tiles of each row that stay, whose number is negative."""
    place = 0
    for first, count in [*runs, (grid.tiles, 0)]:
        while place < first:
            stop = min(first, (place // grid.columns + 1) * grid.columns)
            yield place, place - stop
            place = stop
        if count:
            yield first, count
        place = first + count


def _region(grid: Grid, first: int, count: int) -> Region:
    """The pixels of neighbouring tiles of a row."""
    (top, left), (height, width, _) = grid.origin(first), grid.shape(first + count - 1)
    return Region(top, left, height, (count - 1) * grid.tile[1] + width)
