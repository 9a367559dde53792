"""What this installation is and what it can use here."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

import zellige

from ..kernels import available_backends
from .device import available_memory, pick_device, pick_precision

__all__ = ["describe"]

_PACKAGES = ("torch", "triton", "numpy", "safetensors", "pillow", "tifffile", "basemap-data", "cupy-cuda13x")


def describe() -> dict[str, Any]:
    """Versions, devices, kernel backends by device, and the precision that `auto` picks on each."""
    devices = [torch.device("cpu")] + [torch.device("cuda", k) for k in range(torch.cuda.device_count())]
    return {
        "zellige": zellige.__version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "default_device": str(pick_device()),
        "devices": {
            str(device): {
                "name": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
                "free_memory_bytes": available_memory(device),
                "precision": {torch.bfloat16: "bf16", torch.float32: "fp32"}[pick_precision("auto", device)],
                "kernel_backends": list(available_backends(device)),
            }
            for device in devices
        },
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
