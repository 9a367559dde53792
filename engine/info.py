"""The properties of this installation (versions, devices, backends) and of a model, as dictionaries."""

import math
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from rich.table import Table
from rich.text import Text

from zellige.errors import TaskError
from zellige.version import __version__

from ..kernels import available_backends
from .device import available_memory, pick_device, pick_precision, precision_of, processor
from .exported import describe_exported, is_exported
from .library import find, load_checkpoint
from .rewrite.plan import AS_TRAINED

__all__ = ["describe", "describe_model", "rewrites_table"]

_PACKAGES = ("torch", "triton", "numpy", "safetensors", "pillow", "tifffile", "basemap-data", "cupy-cuda13x")


def describe() -> dict[str, Any]:
    """Versions of packages, and for every device its kernel backends and the precision that `auto` picks."""
    devices = [torch.device("cpu")] + [torch.device("cuda", k) for k in range(torch.cuda.device_count())]
    return {
        "zellige": __version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "default_device": str(pick_device()),
        "devices": {
            str(device): {
                "name": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
                "free_memory_bytes": available_memory(device),
                "precision": precision_of(pick_precision("auto", device)),
                "kernel_backends": list(available_backends(device)),
            }
            for device in devices
        },
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }


def describe_model(
    model: str | os.PathLike[str], device: str = "auto", precision: str = "auto", *, rewrites: bool = False
) -> dict[str, Any]:
    """The properties of a model and, on request, the form in which each of its layers runs here.

    Args:
        model, device, precision: as in `load_checkpoint`.
        rewrites: also tell each layer's choice of forms, which is measured if the cache lacks it.
    Returns:
        name, system, resolution (WIDTHxHEIGHT), parameters, bytes, licence, description, path, config, device and
        precision; with `rewrites` also "rewrites", a list of `Choice.row()`. An exported file has the keys of
        `describe_exported`.
    Raises:
        TaskError: `rewrites` is asked of an exported file.
        ZelligeError: as in `load_checkpoint`.
    """
    path = find(model)
    if is_exported(path):
        if rewrites:
            raise TaskError(
                f"the layers of {path} have the form that they were exported in; see those of its checkpoint"
            )
        return describe_exported(path)
    loaded = load_checkpoint(model, device, precision, rewrite=rewrites)
    header, (height, width) = loaded.header, loaded.size
    found = {
        "name": loaded.name,
        "system": loaded.system,
        "resolution": f"{width}x{height}",
        "parameters": sum(math.prod(t.shape) for name, t in header.tensors.items() if "running_" not in name),
        "bytes": header.path.stat().st_size,
        "licence": header.details.get("licence", "unknown"),
        "description": header.details.get("description", ""),
        "path": str(header.path),
        "config": loaded.config.model_dump(mode="json"),
        "device": str(loaded.device),
        "precision": loaded.precision,
    }
    return found | ({"rewrites": [choice.row() for choice in loaded.choices]} if rewrites else {})


def rewrites_table(rows: list[dict[str, Any]]) -> Table:
    """A table for people of rows from `Choice.row()`: one column of milliseconds for each form, the chosen one bold."""
    forms = list(dict.fromkeys([AS_TRAINED, *(form for row in rows for form in row["milliseconds"])]))
    table = Table("layer", "given", "dtype", *forms, "gain", "measured", title="milliseconds by form", box=None)
    for row in rows:
        times: dict[str, str | Text] = {form: f"{time:.4g}" for form, time in row["milliseconds"].items()}
        times[row["form"]] = Text(f"{times[row['form']]} *", style="bold")
        when = "before" if row["cached"] else "now"
        shown = (times.get(form, "") for form in forms)
        table.add_row(row["layer"], row["shapes"], row["dtype"], *shown, f"{row['gain']:.2f}x", when)
    return table


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
