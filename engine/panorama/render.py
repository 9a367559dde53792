"""Renders a whole picture to a file within a memory budget."""

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .canvas import open_canvas
from .memory import measured_peak
from .patches import PatchMaker
from .plan import block_bytes, filled, plan_render
from .renderer import Renderer
from .scene import Region, Scene

__all__ = ["predict_render", "render_file"]

_PARTS = 3  # of a picture that are rendered to predict the whole


def render_file(
    maker: PatchMaker,
    scene: Scene,
    path: Path,
    *,
    budget: int,
    name: str = "the model",
    advance: Callable[[int, int], None] = lambda done, total: None,
    region: Region | None = None,
    compression: str | None = None,
    quality: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Render a scene, or a region of it, into a file within a memory budget; tiles stream out as they are finished.

    Args:
        maker: the generator of the patches.
        scene: the picture.
        path: the file; its extension is one that `open_canvas` knows.
        budget: bytes of the CUDA device, which the allocator enforces; on a CPU, bytes by which the process may grow.
            Getting a graph ready counts on CUDA only.
        name: the model's name, for errors.
        advance: called with (pixels done, pixels in all).
        region: the file's part of the picture, whose pixels are those of the whole; None for the whole.
        compression, quality, metadata: of the file, as in `open_canvas`.
    Returns:
        a report: width, height, patches, block (patches made at once, down and across), batch (in blocks), seconds,
        megapixels_per_second, memory_budget_bytes, predicted_memory_bytes, peak_memory_bytes. The seconds are divided
        into seconds_generate, in which patches were made and composed, and seconds_waiting, in which the canvas held up
        the render. Threads beside the render took seconds_encode for compression and seconds_write for the disk.
    Raises:
        BudgetError: the budget is too small for one patch.
        OutputError, SizeError: the file cannot be written, its format cannot have this size, or the region is not
            inside the picture.
        ValuesError: the model gives values that are not finite.
    """
    whole = scene.whole if region is None else region
    scene.check(whole)
    canvas = open_canvas(
        path, whole.width, whole.height, patch=scene.patch,
        compression=compression, quality=quality, cyclic=_closed(scene, whole), metadata=metadata,
    )  # fmt: skip
    plan, tiles = plan_render(maker, scene, canvas, budget, name, whole)
    area, device = scene.block[0] * scene.block[1], maker.device
    renderer = Renderer(maker, plan.batch * area, name, budget, reuse=True)
    if maker.graph and device.type == "cpu":
        renderer.run, _ = maker.prepared(scene.block, filled(maker, plan.batch), None)
    total, done, patches, generating = whole.width * whole.height, 0, 0, 0.0
    began = time.perf_counter()
    with measured_peak(device, budget, whole=maker.graph) as peak, canvas:
        if maker.graph and device.type == "cuda":
            usual = len(scene.work(next(chunks(whole, canvas.tile, tiles))[0]))
            batch = -(-usual // -(-usual // plan.batch))  # a chunk in equal parts, because a batch is never padded then
            rest = plan.predicted_bytes - block_bytes(maker, scene.block, plan.batch)
            renderer.run, batch = maker.prepared(scene.block, batch, budget - rest)
            renderer.batch = batch * area
        for part, widths in chunks(whole, canvas.tile, tiles):
            started = time.perf_counter()
            pixels = renderer.region(scene, part).cpu().numpy()
            generating += time.perf_counter() - started
            for left, width in widths:
                canvas.write(pixels[:, left : left + width])
            del pixels
            patches += len(scene.work(part)) * area
            done += part.width * part.height
            peak.look()
            advance(done, total)
    seconds = time.perf_counter() - began
    return {
        "width": whole.width,
        "height": whole.height,
        "patches": patches,
        "block": list(scene.block),
        "batch": renderer.batch // area,
        "seconds": seconds,
        "seconds_generate": generating,
        "seconds_encode": canvas.seconds.encode,
        "seconds_write": canvas.seconds.write,
        "seconds_waiting": canvas.seconds.waiting,
        "megapixels_per_second": total / seconds / 1e6,
        "memory_budget_bytes": budget,
        "predicted_memory_bytes": plan.predicted_bytes,
        "peak_memory_bytes": peak.bytes,
    }


def predict_render(
    maker: PatchMaker,
    scene: Scene,
    path: Path,
    *,
    budget: int,
    name: str = "the model",
    region: Region | None = None,
    compression: str | None = None,
    quality: int | None = None,
) -> dict[str, Any]:
    """Predict what `render_file` takes, from up to three small parts of the picture that are rendered and thrown away.

    Args:
        maker, scene, path, budget, name, region, compression, quality: as of `render_file`; the path is checked, and
            nothing is written there.
    Returns:
        width, height, patches (estimated), block, batch, memory_budget_bytes, predicted_memory_bytes,
        predicted_seconds and predicted_file_bytes.
    Raises:
        the errors of `render_file` that can be foreseen.
    """
    whole = scene.whole if region is None else region
    scene.check(whole)
    canvas = open_canvas(
        path, whole.width, whole.height, patch=scene.patch, compression=compression, quality=quality,
        cyclic=_closed(scene, whole),
    )  # fmt: skip
    plan, tiles = plan_render(maker, scene, canvas, budget, name, whole)
    height, width = min(canvas.tile[0], whole.height), min(tiles * canvas.tile[1], whole.width)
    places = {
        (share * (whole.height - height) // 2, share * (whole.width - width) // 2) for share in range(_PARTS)
    }  # the first, the middle and the last
    found: list[tuple[float, int, int]] = []
    with TemporaryDirectory() as folder:
        for top, left in sorted(places):
            part = Region(whole.top + top, whole.left + left, height, width)
            into = Path(folder, f"part-{len(found)}{path.suffix}")
            report = render_file(
                maker, scene, into, budget=budget, name=name, region=part, compression=compression, quality=quality
            )
            found.append((report["seconds"], report["patches"], _bytes_of(into)))
    pixels, sample = whole.width * whole.height, height * width
    # The first part pays for the first calls, so it tells no time if there is another one.
    seconds = [one[0] for one in found[1:]] or [found[0][0]]
    patches, size = (sum(one[k] for one in found) / len(found) for k in (1, 2))
    return {
        "width": whole.width,
        "height": whole.height,
        "patches": round(patches / sample * pixels),
        "block": list(scene.block),
        "batch": plan.batch,
        "memory_budget_bytes": budget,
        "predicted_memory_bytes": plan.predicted_bytes,
        "predicted_seconds": sum(seconds) / len(seconds) / sample * pixels,
        "predicted_file_bytes": round(size / sample * pixels),
    }


def _bytes_of(path: Path) -> int:
    """Bytes of the files that a canvas made in a folder of its own, under the name of `path`."""
    made = [path, *path.parent.glob(f"{path.stem}_files")]
    files = [file for one in made for file in ([one] if one.is_file() else one.rglob("*")) if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _closed(scene: Scene, whole: Region) -> tuple[bool, bool]:
    """Whether the file's picture closes on itself (vertically, horizontally), which takes whole turns."""
    down, across = scene.lattice.axes
    return (
        down.cyclic and scene.rows % scene.lattice.rows == 0 and whole.height == scene.height,
        across.cyclic and scene.columns % scene.lattice.columns == 0 and whole.width == scene.width,
    )


def chunks(whole: Region, tile: tuple[int, int], tiles: int) -> Iterator[tuple[Region, list[tuple[int, int]]]]:
    """Regions of up to `tiles` tiles in row-major order, each with the (left, width) of its tiles within the region."""
    height, width = tile
    lefts = range(0, whole.width, width)
    for top in range(0, whole.height, height):
        for _, group in groupby(enumerate(lefts), key=lambda pair: pair[0] // tiles):
            places = [left for _, left in group]
            stop = min(places[-1] + width, whole.width)
            part = Region(whole.top + top, whole.left + places[0], min(height, whole.height - top), stop - places[0])
            yield part, [(left - places[0], min(width, whole.width - left)) for left in places]
