"""Run kernels that were built ahead of time with CuPy alone: without torch, Triton or a C compiler.

This file imports only the package's errors, so that a service can ship it with a folder of kernels.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from zellige.errors import CheckpointError, DeviceError, MissingExtraError, ShapeError

__all__ = ["CompiledKernels"]

_SCALARS = {"i32": np.int32, "i64": np.int64, "fp32": np.float32}


class CompiledKernels:
    """A folder that `python -m zellige.kernels.triton.compile` has written.

    Args:
        folder: the folder, which holds `manifest.json`.
        arch: compute capability to run on, such as 90; None asks the device.

    Raises:
        CheckpointError: the manifest is missing, damaged, or of another version.
    """

    def __init__(self, folder: Path, arch: int | None = None) -> None:
        self.folder = folder
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            version, self._entries = manifest["version"], manifest["kernels"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{folder} holds no manifest of kernels ({error}); build them again.") from error
        if version != 2:
            raise CheckpointError(
                f"{folder} holds kernels of format {version}, this launcher reads 2; build them again."
            )
        self._arch = arch
        self._loaded: dict[tuple[str, int], Any] = {}

    @cached_property
    def arch(self) -> int:
        """The compute capability that kernels are chosen for."""
        return self._arch if self._arch is not None else int(_cupy().cuda.Device().compute_capability)

    def choose(self, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Pick the entry of a variant: the widest loads that the arguments allow, the newest code that the device runs.

        A cubin runs on its own major architecture from its minor version on. PTX runs on every newer architecture.

        Args:
            name: of the variant, without "_wide".
            arguments: the kernel's arguments by name; arrays have `data.ptr`, as CuPy's do.

        Raises:
            DeviceError: there is no variant of this name, or none for this architecture.
            ShapeError: the variant has wide loads only, and an address or a size is not a multiple of 16.
        """
        found = [e for e in self._entries if e["name"] in (name, f"{name}_wide") and e["arch"] <= self.arch]
        if not found:
            known = sorted({e["name"].removesuffix("_wide") for e in self._entries if e["arch"] <= self.arch})
            raise DeviceError(
                f"{self.folder} holds no {name} for sm_{self.arch}; it holds {', '.join(known) or 'none'}."
            )
        fitting = [
            e for e in found if all(_address(arguments[argument]) % 16 == 0 for argument in e["divisible_by_16"])
        ]
        if not fitting:
            needed = ", ".join(found[0]["divisible_by_16"])
            raise ShapeError(f"{name} needs multiples of 16, addresses in bytes: {needed}.")
        return max(fitting, key=lambda e: (e["arch"], len(e["divisible_by_16"])))

    def launch(self, name: str, arguments: Mapping[str, Any], sizes: Mapping[str, int] | None = None) -> None:
        """Start a kernel on CuPy's current stream.

        Args:
            name: of the variant, such as "affine_relu_bfloat16_channels_last".
            arguments: all of the kernel's arguments by name, arrays on the device and numbers.
            sizes: the sizes of the launch that are not arguments, by name.

        Raises:
            DeviceError: there is no variant of this name, or none for this architecture.
            ShapeError: an argument or a size is missing, not known, or not a multiple of 16 where it must be.
            CheckpointError: the kernel's file is missing or is not the one that the manifest describes.
        """
        expected = {argument for e in self._entries if e["name"] == name for argument, _ in e["arguments"]}
        if expected and expected != set(arguments):
            raise ShapeError(f"{name} takes {', '.join(sorted(expected))}; got {', '.join(sorted(arguments))}.")
        entry = self.choose(name, arguments)
        known = {**arguments, **(sizes or {})}
        try:
            grid = [
                prod(-(-int(size if isinstance(size, int) else known[size]) // divisor) for size, divisor in axis)
                for axis in entry["grid"]
            ]
        except KeyError as missing:
            raise ShapeError(f"{name} needs the size {missing} for its launch.") from None
        if 0 in grid:
            return
        values = [
            arguments[argument] if kind.startswith("*") else _SCALARS[kind](arguments[argument])
            for argument, kind in entry["arguments"]
        ]
        hidden = [np.uint64(0)] * entry["hidden_pointers"]
        self._function(entry)(
            (*grid, 1, 1)[:3], (entry["threads"],), (*values, *hidden), shared_mem=entry["shared_bytes"]
        )

    def _function(self, entry: dict[str, Any]) -> Any:
        key = (entry["name"], entry["arch"])
        if key not in self._loaded:
            native = entry["arch"] // 10 == self.arch // 10
            file = entry["cubin" if native else "ptx"]
            path = self.folder / file["file"]
            try:
                content = path.read_bytes()
            except OSError as error:
                raise CheckpointError(f"{path} cannot be read: {error.strerror}; build the kernels again.") from error
            if hashlib.sha256(content).hexdigest() != file["sha256"]:
                raise CheckpointError(f"{path} is not the file that its manifest describes; build the kernels again.")
            function = _cupy().RawModule(path=str(path)).get_function(entry["entry"])
            if entry["shared_bytes"] > 48 * 2**10:
                function.max_dynamic_shared_size_bytes = entry["shared_bytes"]
            self._loaded[key] = function
        return self._loaded[key]


def _address(argument: Any) -> int:
    return int(argument.data.ptr) if hasattr(argument, "data") and hasattr(argument.data, "ptr") else int(argument)


def _cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        raise MissingExtraError("cupy", "running compiled kernels", "cuda") from error
    return cupy
