"""Compares a panorama to disk with the bare generator, to find the cost of scheduling, blending and writing."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..engine.device import available_memory, parse_bytes
from ..engine.panorama.canvas import open_canvas
from ..engine.panorama.patches import Block, Panoramic, PatchMaker
from ..engine.panorama.plan import filled, plan_render
from ..engine.panorama.render import render_file
from ..engine.panorama.scene import Region
from .conditions import conditions

__all__ = ["measure"]


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
        plan, tiles = plan_render(maker, scene, canvas, budget, model.name)
        strip = Region(0, 0, min(canvas.tile[0], scene.height), min(tiles * canvas.tile[1], scene.width))
        size = len(scene.work(strip))
        # The render splits a chunk into equal parts and fills these up, so the bare generator takes the same batch.
        batch = filled(maker, -(-size // -(-size // plan.batch)))
        bare, full, reports = [], [], []
        area = scene.block[0] * scene.block[1]
        _bare_rate(maker, scene.block, batch, 4)
        for _ in range(rounds):
            report = render_file(maker, scene, out, budget=budget, name=model.name)
            reports.append(report)
            full.append(report["patches"] / report["seconds"])
            bare.append(_bare_rate(maker, scene.block, batch, max(1, report["patches"] // area // batch)))
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


@torch.inference_mode()
def _bare_rate(maker: PatchMaker, block: Block, batch: int, calls: int) -> float:
    """Return the patches a second of the maker alone, in blocks, on random inputs that are already on the device."""
    random = np.random.default_rng(0)
    latents = torch.from_numpy(random.uniform(-1, 1, (batch, maker.latent))).to(maker.device, torch.float32)
    places = random.uniform(0, 2, (2, batch))
    coordinates = torch.from_numpy(maker.lattice.micro(*places)).to(maker.device, torch.float32)
    began = time.perf_counter()
    for _ in range(calls):
        maker(latents, coordinates, block)
    if maker.device.type == "cuda":
        torch.cuda.synchronize(maker.device)
    return calls * batch * block[0] * block[1] / (time.perf_counter() - began)
