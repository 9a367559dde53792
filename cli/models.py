"""The verbs that describe: `zellige info` and `zellige models`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from .flags import refuse_unused
from .options import Device, Json, Precision
from .printing import facts, grid, report, show

__all__ = ["info", "models"]


def info(
    context: typer.Context,
    model: Annotated[str | None, typer.Argument(help="Describe this model: a bundled name or a path.")] = None,
    rewrites: Annotated[
        bool, typer.Option("--rewrites", help="Show how long each form of the model's layers takes here.")
    ] = False,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
) -> None:
    """Say what this installation can use here, or what a model is."""
    from ..engine.exported import is_exported
    from ..engine.info import describe, describe_model, rewrites_table
    from ..engine.library import find

    if model is None:
        refuse_unused(context, "info without a model", ("rewrites", "device", "precision"))
        return report(describe(), True) if as_json else _show_installation(describe())
    if is_exported(find(model)):
        refuse_unused(context, "info of an exported file", ("rewrites", "device", "precision"))
    found = describe_model(model, device, precision, rewrites=rewrites)
    if as_json:
        return report(found, True)
    config, rows = found.pop("config"), found.pop("rewrites", None)
    found["parameters"] = f"{found['parameters']:,}" if "parameters" in found else None
    known = {key: value for key, value in found.items() if value not in (None, "")}
    show(facts(known), "", facts(config, title="configuration"))
    if rows is not None:
        show("", rewrites_table(rows), least=140)


def models(
    folder: Annotated[Path | None, typer.Argument(help="Also list the checkpoints in this folder.")] = None,
    as_json: Json = False,
) -> None:
    """List bundled and local models: system, resolution, parameters, size, licence of the training data."""
    from ..engine.library import list_models

    rows = list_models(folder)
    if as_json:
        return report({"models": rows}, True)
    show(grid([_listed(row) for row in rows]))


def _listed(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's row in a list for people."""
    return {
        "name": row["name"],
        "system": row["system"],
        "resolution": row["resolution"],
        "parameters": f"{row['parameters']:,}",
        "size": f"{row['bytes'] / 1e6:.1f} MB",
        "licence of the data": row["licence"],
    }


def _show_installation(found: Mapping[str, Any]) -> None:
    default = found["default_device"]
    devices = [
        {
            "device": f"{name} (auto)" if name == default else name,
            "precision": device["precision"],
            "free memory": f"{device['free_memory_bytes'] / 2**30:.1f} GiB",
            "kernels": ", ".join(device["kernel_backends"]),
        }
        for name, device in found["devices"].items()
    ]
    names = {name: device["name"] for name, device in found["devices"].items()}
    packages = {name: version or "not installed" for name, version in found["packages"].items()}
    versions = {"zellige": found["zellige"], "python": found["python"], "cores": found["cores"]}
    show(
        facts(versions | {"threads": found["threads"]} | names),
        "",
        grid(devices, title="devices, and what auto picks on them"),
        "",
        facts(packages, title="packages"),
    )
