"""The part `panorama`: the bundled model on the device, compared with the same model on the CPU."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from zellige.errors import TaskError

from ...engine.library import load_task
from ...engine.panorama.scene import Region
from .supervisor import Options

__all__ = ["panorama_steps"]

MODEL = "planet"
_WIDTHS = {"cuda": (16384, 131072), "cpu": (2048, 2048)}  # of a warm-up, and of the render
_COMPARED = {"cuda": 1024, "cpu": 64}  # columns of pixels


def panorama_steps(options: Options) -> Iterator[tuple[str, Any]]:
    """Compare pixels with the CPU's first, then measure the time."""
    yield f"{MODEL} against the CPU", lambda: _against_the_cpu(options.device)
    yield f"{MODEL} to disk", lambda: _to_disk(options.device)


def _against_the_cpu(device: str) -> dict[str, Any]:
    """Compare part of two turns in bf16, on the device and on the CPU, with fp32 on the CPU.

    Errors are root mean squares, in steps of a byte. Devices round differently, so twice the error of the CPU is
    allowed, as for kernels.
    """
    pixels = []
    runs: list[tuple[str, str]] = [("cpu", "fp32"), ("cpu", "bf16"), (device, "bf16")]
    for place, precision in runs:
        model = load_task("panorama", MODEL, place, precision)
        scene = model.scene(2 * model.size[1], None, seed=3)
        pixels.append(model.render(scene, Region(0, 0, scene.height, _COMPARED[device])).astype(np.float64))
    exact, rounded, actual = pixels
    error, allowed = (float(np.sqrt(np.mean((t - exact) ** 2))) for t in (actual, rounded))
    if not error <= 2 * allowed:
        raise TaskError(
            f"{MODEL} in bf16 on {device} differs from fp32 on the CPU by {error:.3g} steps of a byte; "
            f"bf16 on the CPU differs by {allowed:.3g}, and twice that is allowed."
        )
    return {"error": error, "error_of_bf16_on_the_cpu": allowed, "largest": float(np.abs(actual - exact).max())}


def _to_disk(device: str) -> dict[str, Any]:
    model = load_task("panorama", MODEL, device, "bf16")
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for width in _WIDTHS[device]:
            report = model.panorama(Path(folder) / "panorama.tif", width=width, memory="8GiB", seed=3)
    pixels = report["width"] * report["height"]
    return report | {"pixels_per_second": pixels / report["seconds"], "out": None}
