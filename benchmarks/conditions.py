"""The conditions that a figure was measured under; they go into every result."""

import platform
import shlex
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch

from ..engine.info import describe

__all__ = ["conditions"]


def conditions() -> dict[str, Any]:
    """Return date, command, machine and versions."""
    facts = describe()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "command": shlex.join(["zellige", *sys.argv[1:]]),
        "processor": facts["devices"]["cpu"]["name"],
        "cores": facts["cores"],
        "threads": facts["threads"],
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(terse=True),
        "versions": {name: version(name) for name in ("torch", "numpy")} | {"python": facts["python"]},
    }
