"""Renders a whole picture to a file within a memory budget."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from zellige.errors import BudgetError, OutputError

from .canvas import open_canvas, resumable
from .canvas.canvas import Canvas, Pixels
from .journal import Journal
from .memory import measured_peak
from .patches import PatchMaker
from .plan import Taken, block_bytes, plan_render
from .renderer import Renderer
from .scene import Region, Scene
from .workers import AHEAD, Chunk, Tally
from .workers.processes import Crew
from .workers.ray import Nodes

__all__ = ["closed", "predict_render", "render_file"]

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
    journal: Journal | None = None,
    crew: Crew | None = None,
    nodes: Nodes | None = None,
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
        journal: keeps what a killed run or, if it resumes, a failed one has finished. It is not kept for a format that
            cannot be resumed.
        crew: worker processes that make the patches, among which the budget and torch's threads are divided; None for
            this process.
        nodes: the nodes of a Ray cluster instead, each of whose tasks has the budget and one thread.
    Returns:
        a report: width, height, patches, block (patches made at once, down and across), batch (in blocks), seconds,
        megapixels_per_second (of those made), memory_budget_bytes, predicted_memory_bytes, peak_memory_bytes, and
        pixels_resumed, the pixels that an earlier run had made. The seconds are divided into seconds_generate, in which
        patches were made and composed, and seconds_waiting, in which the canvas held up the render. Threads beside the
        render took seconds_encode for compression and seconds_write for the disk. The report also has the number of
        workers, and the threads of each. With a crew seconds_generate and peak_memory_bytes are sums over all
        processes, and seconds_start is the time in which the crew started, which does not count in seconds. With nodes
        workers are the tasks that can run at once, the peak is the largest of a task, and the
        report also has nodes (the bands and seconds of each), bands, and bands_retried.
    Raises:
        BudgetError: the budget is too small for one patch in every worker, or on CUDA for the batches of the picture
            that is resumed.
        ResumeError: the unfinished picture is another one, or is damaged.
        OutputError, SizeError: the file cannot be written, its format cannot have this size, or the region is not
            inside the picture.
        ValuesError: the model gives values that are not finite.
        WorkerError: a worker was killed, or failed.
    """
    whole = scene.whole if region is None else region
    scene.check(whole)
    canvas = open_canvas(
        path, whole.width, whole.height, patch=scene.patch,
        compression=compression, quality=quality, cyclic=closed(scene, whole), metadata=metadata,
    )  # fmt: skip
    if canvas.partial is None and journal is not None and journal.resume:
        raise OutputError(
            f"{path.name} cannot be resumed, because {path.suffix} is compressed as a whole at the end. "
            f"Name it {resumable()}, or leave out --resume."
        )
    if nodes:
        nodes.check(path, canvas)
    with ExitStack() as stack:
        if journal is not None and canvas.partial is not None:
            stack.enter_context(journal.opened(canvas.partial, canvas.facts))
            canvas.follow(journal)
            if journal.resumed:
                canvas.metadata = journal.metadata
            maker = stack.enter_context(journal.maker(maker))
        else:
            journal = None
        return _rendered(maker, scene, whole, canvas, journal, budget, name, advance, crew, nodes)


def _rendered(
    maker: PatchMaker,
    scene: Scene,
    whole: Region,
    canvas: Canvas,
    journal: Journal | None,
    budget: int,
    name: str,
    advance: Callable[[int, int], None],
    crew: Crew | None,
    nodes: Nodes | None,
) -> dict[str, Any]:
    taken = Taken(journal.block, journal.batch, journal.together) if journal is not None and journal.resumed else None
    plan, tiles, scene = plan_render(maker, scene, canvas, budget, name, whole, taken, len(crew) if crew else 0)
    area, device = scene.block[0] * scene.block[1], maker.device
    renderer = Renderer(maker, plan.batch * area, name, budget, reuse=True)
    threads, total, tally = torch.get_num_threads(), whole.width * whole.height, Tally()
    if crew:
        # An unfinished picture goes on with the threads that each of its processes had, whatever their number.
        threads = threads if taken else max(1, threads // len(crew))
        crew.begin(maker, scene, name, batch=plan.batch, threads=threads, budget=budget, tile=canvas.tile, tiles=tiles)
    elif nodes:
        threads = threads if taken else 1
        nodes.begin(maker, scene, name, batch=plan.batch, threads=threads, budget=budget)
    elif maker.graph and device.type == "cpu":
        renderer.run, _ = maker.prepared(scene.block, scene.cells, plan.batch, None)

    def pixels_of(part: Region) -> Pixels:
        started = time.perf_counter()
        pixels = renderer.region(scene, part).cpu().numpy()
        tally.seconds += time.perf_counter() - started
        tally.patches += len(scene.work(part)) * area
        return pixels

    began = time.perf_counter()
    with measured_peak(device, budget, whole=maker.graph) as peak, canvas:
        if maker.graph and device.type == "cuda":
            usual = len(scene.work(next(chunks(whole, canvas.tile, tiles))[0]))
            batch = -(-usual // -(-usual // plan.batch))  # a chunk in equal parts, because a batch is never padded then
            rest = plan.predicted_bytes - block_bytes(maker, scene.block, scene.cells, plan.batch)
            renderer.run, batch = maker.prepared(scene.block, scene.cells, batch, budget - rest)
            renderer.batch = batch * area
        if taken not in (None, (scene.block, renderer.batch // area, tiles)) and device.type == "cuda":
            raise BudgetError(
                f"{canvas.path} was begun in batches of {taken.batch} blocks, which do not fit this budget, and other "
                "batches give other last bits. Give the --memory that it was begun with."
            )
        if journal is not None:
            journal.begin(
                scene.block, renderer.batch // area, tiles, -(-whole.width // canvas.tile[1]), canvas.metadata, threads
            )
        todo = _left(chunks(whole, canvas.tile, tiles), canvas.done)
        if nodes:
            nodes.write(canvas, todo, tiles, tally, advance)
            todo = iter(())
        made = crew.make(todo, tally) if crew else ((chunk, pixels_of(chunk.region)) for chunk in todo)
        for chunk, pixels in made:
            for left, width in chunk.tiles:
                canvas.write(pixels[:, left : left + width])
            del pixels
            peak.look()
            advance(chunk.done, total)
        if crew:
            crew.finish(tally)
    seconds = time.perf_counter() - began
    return {
        "width": whole.width,
        "height": whole.height,
        "pixels_resumed": canvas.resumed_pixels,
        "patches": tally.patches,
        "block": list(scene.block),
        "batch": renderer.batch // area,
        "workers": len(crew) if crew else 1,
        "threads": threads,
        "seconds": seconds,
        **({"seconds_start": crew.seconds_start} if crew else nodes.report() if nodes else {}),
        "seconds_generate": tally.seconds,
        "seconds_encode": canvas.seconds.encode,
        "seconds_write": canvas.seconds.write,
        "seconds_waiting": canvas.seconds.waiting,
        "megapixels_per_second": (total - canvas.resumed_pixels) / seconds / 1e6,
        "memory_budget_bytes": budget,
        "predicted_memory_bytes": plan.predicted_bytes,
        "peak_memory_bytes": tally.peak if nodes else peak.bytes + tally.peak,
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
    crew: Crew | None = None,
) -> dict[str, Any]:
    """Predict what `render_file` takes, from up to three small parts of the picture that are rendered and thrown away.

    Args:
        maker, scene, path, budget, name, region, compression, quality, crew: as of `render_file`; the path is checked,
            and nothing is written there.
    Returns:
        width, height, patches (estimated), block, batch, workers, threads, memory_budget_bytes, predicted_memory_bytes,
        predicted_seconds and predicted_file_bytes.
    Raises:
        the errors of `render_file` that can be foreseen.
    """
    whole = scene.whole if region is None else region
    scene.check(whole)
    canvas = open_canvas(
        path, whole.width, whole.height, patch=scene.patch, compression=compression, quality=quality,
        cyclic=closed(scene, whole),
    )  # fmt: skip
    plan, tiles, scene = plan_render(maker, scene, canvas, budget, name, whole, workers=len(crew) if crew else 0)
    height, width = min(canvas.tile[0], whole.height), min(tiles * canvas.tile[1], whole.width)
    if crew:  # chunks for all workers
        most, width = AHEAD * len(crew), min(AHEAD * len(crew) * width, whole.width)
        height = min(-(-most * tiles * canvas.tile[1] // width) * canvas.tile[0], whole.height)
    places = {
        (share * (whole.height - height) // 2, share * (whole.width - width) // 2) for share in range(_PARTS)
    }  # the first, the middle and the last
    found, started = list[tuple[float, int, int]](), 0.0
    with TemporaryDirectory() as folder:
        for top, left in sorted(places):
            part = Region(whole.top + top, whole.left + left, height, width)
            into = Path(folder, f"part-{len(found)}{path.suffix}")
            report = render_file(
                maker, scene, into, budget=budget, name=name, region=part, compression=compression, quality=quality,
                crew=crew,
            )  # fmt: skip
            started = max(started, report.get("seconds_start", 0.0))
            found.append((report["seconds"], report["patches"], _bytes_of(into)))
    pixels, sample = whole.width * whole.height, height * width
    small = open_canvas(path, width, height, patch=scene.patch, compression=compression, quality=quality)
    # The first part pays for the first calls, so it tells no time if there is another one.
    seconds = [one[0] for one in found[1:]] or [found[0][0]]
    patches, size = (sum(one[k] for one in found) / len(found) for k in (1, 2))
    return {
        "width": whole.width,
        "height": whole.height,
        "patches": round(patches / sample * pixels),
        "block": list(scene.block),
        "batch": plan.batch,
        "workers": report["workers"],
        "threads": report["threads"],
        "memory_budget_bytes": budget,
        "predicted_memory_bytes": plan.predicted_bytes,
        "predicted_seconds": sum(seconds) / len(seconds) / sample * pixels + started,
        "predicted_file_bytes": round(size / small.stored_pixels * canvas.stored_pixels),
    }


def _bytes_of(path: Path) -> int:
    """Bytes of the files that a canvas made in a folder of its own, under the name of `path`."""
    made = [path, *path.parent.glob(f"{path.stem}_files")]
    files = [file for one in made for file in ([one] if one.is_file() else one.rglob("*")) if file.is_file()]
    return sum(file.stat().st_size for file in files)


def closed(scene: Scene, whole: Region) -> tuple[bool, bool]:
    """Whether the file's picture closes on itself (vertically, horizontally), which takes whole turns."""
    down, across = scene.lattice.axes
    return (
        down.cyclic and scene.rows % scene.lattice.rows == 0 and whole.height == scene.height,
        across.cyclic and scene.columns % scene.lattice.columns == 0 and whole.width == scene.width,
    )


def _left(parts: Iterable[tuple[Region, list[tuple[int, int]]]], done: int) -> Iterator[Chunk]:
    """The chunks with tiles behind the first `done` ones; each is made whole, because parts of it are other batches."""
    number, pixels = 0, 0
    for part, widths in parts:
        there, number = max(done - number, 0), number + len(widths)
        pixels += part.width * part.height
        if there < len(widths):
            yield Chunk(part, widths[there:], pixels)


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
