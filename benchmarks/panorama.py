"""Compares a panorama to disk with the bare generator, half steps, another model's panorama, and several workers."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..engine.checkpoint.file import write_checkpoint
from ..engine.device import available_memory, parse_bytes
from ..engine.library import load_checkpoint
from ..engine.panorama.canvas import open_canvas
from ..engine.panorama.patches import Panoramic, PatchMaker
from ..engine.panorama.plan import plan_render
from ..engine.panorama.render import render_file
from ..engine.panorama.scene import Region, Scene
from ..engine.panorama.workers import devices_of
from ..engine.systems import system_of
from .conditions import conditions
from .generate.subjects import REFERENCES, random_networks

__all__ = ["HALF_STEP", "measure", "measure_against", "measure_workers", "panoramic"]

HALF_STEP = "half-step"


def panoramic(name: str, device: str, precision: str) -> Any:
    """The model of a name or path; a reference network gets random weights and a cyclic width, which panoramas need.

    Raises:
        TaskError: it has no panoramas.
        ZelligeError: as of `load_checkpoint`.
    """
    if name not in REFERENCES:
        model = load_checkpoint(name, device, precision)
        system_of(model.system).task("panorama")  # refuses a model without this task
        return model
    REFERENCES[name].task("panorama")
    networks, config = random_networks(name, topology="cylinder")
    part = REFERENCES[name].part("model")
    state = {part.PREFIX + key: value for key, value in networks.state_dict().items() if value.is_floating_point()}
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / f"{name}.safetensors"
    write_checkpoint(path, state, system=REFERENCES[name].name, config=config.model_dump(mode="json"))
    model = load_checkpoint(path, device, precision)
    model.folder = folder  # its file is read again for every render, and removed with the model
    return model


def measure(
    model: Panoramic, width: int | None, height: int | None, memory: str | int | None, seed: int, rounds: int
) -> dict[str, Any]:
    """Render a panorama to disk, and run the patch maker alone on as many patches, in alternating rounds.

    Args:
        model: the model.
        width, height: of the panorama in pixels, as in the task `panorama`.
        memory: budget; both run with the batch that it allows.
        seed: of the panorama.
        rounds: number of rounds; medians are reported, and the median of the ratios of neighbouring rounds.
    Returns:
        report with `generator_patches_per_second`, `render_patches_per_second`, `render_share_of_generator` (the rate
        of the render over that of the generator; 1.0 means no overhead), megapixels per second, the render's last
        report, and the conditions.
    """
    maker = model.patches
    scene = model.scene(width, height, seed)
    budget = available_memory(maker.device) // 2 if memory is None else parse_bytes(memory)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        out = Path(folder) / "panorama.tif"
        canvas = open_canvas(out, scene.width, scene.height, patch=scene.patch)
        plan, tiles, scene = plan_render(maker, scene, canvas, budget, model.name)
        strip = Region(0, 0, min(canvas.tile[0], scene.height), min(tiles * canvas.tile[1], scene.width))
        size = len(scene.work(strip))
        # The render splits a chunk into equal parts, so the bare generator takes the same batch.
        batch = -(-size // -(-size // plan.batch))
        bare, full, reports = [], [], []
        area = scene.block[0] * scene.block[1]
        _bare_rate(maker, scene, batch, 4)
        for _ in range(rounds):
            report = render_file(maker, scene, out, budget=budget, name=model.name)
            reports.append(report)
            full.append(report["patches"] / report["seconds"])
            bare.append(_bare_rate(maker, scene, batch, max(1, report["patches"] // area // batch)))
    return {
        "model": model.name,
        "block": list(scene.block),
        "batch": batch,
        "rounds": rounds,
        "generator_patches_per_second": statistics.median(bare),
        "render_patches_per_second": statistics.median(full),
        "render_share_of_generator": statistics.median(f / b for f, b in zip(full, bare, strict=True)),
        "shares": [f / b for f, b in zip(full, bare, strict=True)],
        "megapixels_per_second": statistics.median(r["megapixels_per_second"] for r in reports),
        "seconds": statistics.median(r["seconds"] for r in reports),
        **{key: reports[-1][key] for key in ("width", "height", "patches", "memory_budget_bytes", "peak_memory_bytes")},
        "device": str(maker.device),
        "precision": model.precision,
        "seed": seed,
        "conditions": conditions(),
    }


def measure_against(
    model: Any,
    other: Any | None,
    width: int | None,
    height: int | None,
    memory: str | int | None,
    seed: int,
    rounds: int,
) -> dict[str, Any]:
    """Render a panorama to disk in two ways, in alternating rounds, behind a first one of each that does not count.

    Args:
        model: a model with the task `panorama`.
        other: another one, which renders a picture of the same size; None renders the same model's at half steps.
        width, height, memory, seed, rounds: as of `measure`.
    Returns:
        report with the figures of `model`, those of the other way in `against`, the `ratio` of their rates (the median
        of the `ratios` of neighbouring rounds), and the conditions.
    """
    ways: list[tuple[Any, str | None]] = [(model, None), (other or model, None if other else HALF_STEP)]
    reports: list[list[dict[str, Any]]] = [[], []]
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        for turn in range(rounds + 1):
            for (maker, blend), found in zip(ways, reports, strict=True):
                out = Path(folder) / "panorama.tif"
                report = maker.panorama(out, width, height, memory, seed, blend=blend, compression="none")
                found[:] = [*found, report] if turn else []
    rates = [[report["megapixels_per_second"] for report in found] for found in reports]
    ratios = [ours / theirs for ours, theirs in zip(*rates, strict=True)]
    ours, theirs = (
        {
            "megapixels_per_second": statistics.median(rate),
            "seconds": statistics.median(report["seconds"] for report in found),
            "peak_memory_bytes": max(report["peak_memory_bytes"] for report in found),
            **{key: found[-1][key] for key in ("width", "height", "patches", "block", "batch", "memory_budget_bytes")},
        }
        for rate, found in zip(rates, reports, strict=True)
    )
    against = {"model": (other or model).name} | ({} if other else {"blend": HALF_STEP}) | theirs
    return {
        "model": model.name,
        **ours,
        "against": against,
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "rounds": rounds,
        "device": str(model.device),
        "precision": model.precision,
        "seed": seed,
        "conditions": conditions(),
    }


def measure_workers(
    name: str,
    workers: int,
    width: int | None,
    height: int | None,
    memory: str | int | None,
    seed: int,
    rounds: int,
    *,
    device: str = "auto",
    precision: str = "auto",
) -> dict[str, Any]:
    """Render a panorama to disk by one process of one thread and by several, in alternating rounds.

    A first render by one process does not count; workers begin anew in each round, and make a patch before their time
    counts. Files are not compressed, because the threads that compress would take cores that count for no process.

    Args:
        name, device, precision: the model, as of `panoramic`.
        workers: processes, 2 or more.
        width, height, seed, rounds: as of `measure`.
        memory: budget of all workers; one process gets its share of it.
    Returns:
        report with `pixels_per_second_a_core` of one process and of the workers, without their start, the `ratio` of
        the two (the median of the `ratios` of neighbouring rounds; 1.0 means that the workers cost nothing), the
        workers' `seconds_start`, and the conditions.
    Raises:
        DeviceError: the device is no CPU.
        ZelligeError: as of `panoramic`.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = panoramic(name, device, precision)
        devices_of(workers, None, model.device)  # refuses what is no CPU
        budget = available_memory(model.device) // 2 if memory is None else parse_bytes(memory)
        ways = [(1, budget // workers), (workers, budget)]
        reports: list[list[dict[str, Any]]] = [[], []]
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            out = Path(folder) / "panorama.tif"
            model.panorama(out, width, height, budget // workers, seed, compression="none")
            for _ in range(rounds):
                for (count, share), found in zip(ways, reports, strict=True):
                    found.append(model.panorama(out, width, height, share, seed, compression="none", workers=count))
        stated = conditions()
    finally:
        torch.set_num_threads(before)
    rates = [[report["megapixels_per_second"] * 1e6 / report["workers"] for report in found] for found in reports]
    ratios = [ours / alone for alone, ours in zip(*rates, strict=True)]
    last = reports[1][-1]
    return {
        "model": model.name,
        "workers": workers,
        "pixels_per_second_a_core": {"one": statistics.median(rates[0]), "workers": statistics.median(rates[1])},
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "rounds": rounds,
        "seconds": {"one": statistics.median(report["seconds"] for report in reports[0]),
                    "workers": statistics.median(report["seconds"] for report in reports[1])},
        "seconds_start": statistics.median(report["seconds_start"] for report in reports[1]),
        **{key: last[key] for key in ("width", "height", "block", "batch", "memory_budget_bytes", "peak_memory_bytes")},
        "device": str(model.device),
        "precision": model.precision,
        "seed": seed,
        "conditions": stated,
    }  # fmt: skip


@torch.inference_mode()
def _bare_rate(maker: PatchMaker, scene: Scene, batch: int, calls: int) -> float:
    """Return the patches a second of the maker alone, in blocks, on random inputs that are already on the device."""
    random = np.random.default_rng(0)
    drawn = random.uniform(-1, 1, (batch, *scene.cells, maker.latent))
    latents = torch.from_numpy(drawn).to(maker.device, torch.float32)
    places = random.uniform(0, 2, (2, batch))
    coordinates = torch.from_numpy(maker.lattice.micro(*places)).to(maker.device, torch.float32)
    began = time.perf_counter()
    for _ in range(calls):
        maker(latents, coordinates, scene.block)
    if maker.device.type == "cuda":
        torch.cuda.synchronize(maker.device)
    return calls * batch * scene.block[0] * scene.block[1] / (time.perf_counter() - began)
