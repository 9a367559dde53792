"""The part `conditions`: the machine that the figures are measured on, and the two limits they are compared with."""

import hashlib
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ...engine.info import describe
from ..conditions import conditions
from .supervisor import Options

__all__ = ["condition_steps"]

ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = (
    "torch", "triton", "liger-kernel", "numpy", "cupy-cuda13x", "onnxruntime", "onnxruntime-gpu", "pillow", "pydantic",
    "rich", "safetensors", "typer", "tifffile", "pytest", "hypothesis", "nvidia-cudnn-cu13", "nvidia-cublas",
)  # fmt: skip
_QUERY = (
    "name", "driver_version", "memory.total", "clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem",
    "power.draw", "power.limit", "temperature.gpu", "compute_mode", "mig.mode.current",
)  # fmt: skip


def condition_steps(options: Options) -> Iterator[tuple[str, Any]]:
    """Yield the facts, then the rates of a copy and of a matrix product, measured in the same run as the kernels."""
    device = torch.device(options.device)
    yield "machine", lambda: _machine(device) | {"command": options.command}
    yield "source", _source
    if device.type == "cuda":
        yield "clocks idle", _clocks
    yield "copy", lambda: _copy(device)
    yield "matrix product", lambda: _product(device)
    if device.type == "cuda":
        yield "clocks after work", _clocks


def _machine(device: torch.device) -> dict[str, Any]:
    facts = conditions() | {"packages": {name: _version(name) for name in _PACKAGES}, "installation": describe()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "compute_capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
            "cache_bytes": properties.L2_cache_size,
        }
    return facts


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _source() -> dict[str, Any]:
    """Identify the source that runs: a hash of its files, and its commit if git and its folder are there."""
    digest = hashlib.sha256()
    folders = ("zellige", "engine", "kernels", "export", "training", "benchmarks", "tests")
    for path in sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    found: dict[str, Any] = {"commit": None, "changed": None, "sha256": digest.hexdigest()}
    if shutil.which("git"):
        commit, changed = (
            subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
        if commit.returncode == 0:
            found |= {"commit": commit.stdout.strip(), "changed": bool(changed.stdout.strip())}
    return found


def _clocks() -> dict[str, Any]:
    """Return the clocks that the device reports; they are only read, never set."""
    if not shutil.which("nvidia-smi"):
        return {"nvidia-smi": None}
    command = ["nvidia-smi", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    if answer.returncode != 0:
        return {"nvidia-smi": answer.stdout.strip() or answer.stderr.strip()}
    rows = [dict(zip(_QUERY, line.split(", "), strict=False)) for line in answer.stdout.strip().splitlines()]
    return {"nvidia-smi": rows}


def _copy(device: torch.device) -> dict[str, Any]:
    count = 2**28 if device.type == "cuda" else 2**22
    numbers = torch.randn(count, device=device)
    seconds = _median_seconds(numbers.clone, device)
    moved = 2 * numbers.nbytes
    return {"bytes_read_and_written": moved, "seconds": seconds, "gigabytes_per_second": moved / seconds / 1e9}


def _product(device: torch.device) -> dict[str, Any]:
    side = 8192 if device.type == "cuda" else 512
    left, right = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    seconds = _median_seconds(lambda: left @ right, device)
    return {"side": side, "dtype": "bfloat16", "seconds": seconds, "teraflops": 2 * side**3 / seconds / 1e12}


def _median_seconds(call: Callable[[], Any], device: torch.device) -> float:
    """Return the median of 20 calls after 5, each far longer than its launch and on more data than a cache holds."""
    times = []
    for _ in range(25):
        if device.type == "cuda":
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            stop.record()
            torch.cuda.synchronize(device)
            times.append(start.elapsed_time(stop) / 1000)
        else:
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
    return statistics.median(times[5:])
