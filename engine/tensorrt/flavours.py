"""TensorRT and TensorRT-RTX share one interface; what differs between them stands in one table."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from zellige.errors import DeviceError, MissingExtraError

from .driver import devices

__all__ = ["FLAVOURS", "Flavour", "FlavourName", "flavour_for", "flavour_of_file"]

FlavourName = Literal["rtx", "full"]


@dataclass(frozen=True)
class Flavour:
    """One of the two libraries.

    Attributes:
        name: "rtx" or "full".
        title: for people.
        module: that is imported.
        extra: of this package, which installs it.
        targets: GPUs that it builds for without having them; none, and it builds for the GPU at hand, and needs one.
        usual: the targets where none are asked for.
        plugins: whether nodes of other domains may be plugins. In TensorRT-RTX one that is registered ends the process.
        begins: the first bytes of its files.
        flags: names of the builder's flags that are set.
        eager: whether kernels are compiled where the engine runs. They must be before a graph is captured, and not in
            the background, where an image's last bits would depend on when it was made.
    """

    name: FlavourName
    title: str
    module: str
    extra: str
    targets: tuple[str, ...]
    usual: tuple[str, ...]
    plugins: bool
    begins: bytes
    flags: tuple[str, ...]
    eager: bool

    def library(self, purpose: str) -> Any:
        """Its module.

        Raises:
            MissingExtraError: it is not installed.
        """
        module = _imported(self.module)
        if module is None:
            raise MissingExtraError(self.module, purpose, self.extra)
        return module


_RTX_TARGETS = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_120", "sm_121")
FLAVOURS: dict[FlavourName, Flavour] = {
    # sm_75 is left to those who ask for it: it has no bfloat16. Captured graphs need an allocation by the caller.
    "rtx": Flavour(
        "rtx", "TensorRT-RTX", "tensorrt_rtx", "tensorrt-rtx", _RTX_TARGETS, _RTX_TARGETS[1:], plugins=False,
        begins=b"vtrt", flags=("REQUIRE_USER_ALLOCATION",), eager=True,
    ),
    "full": Flavour(
        "full", "TensorRT", "tensorrt", "tensorrt", (), (), plugins=True, begins=b"", flags=(), eager=False
    ),
}  # fmt: skip


def flavour_for(name: str | None, targets: bool, purpose: str) -> Flavour:
    """The flavour of a name, or the one that fits of those installed: full where there is a GPU to build for.

    Args:
        name: "rtx", "full", or None to choose.
        targets: whether GPUs are named to build for, which only TensorRT-RTX does.
        purpose: what it is for, for the error.
    Raises:
        DeviceError: there is no such flavour; MissingExtraError: none is installed.
    """
    if name is not None:
        for flavour in FLAVOURS.values():
            if flavour.name == name:
                return flavour
        raise DeviceError(f"there is no flavour {name!r} of TensorRT; use {' or '.join(map(repr, FLAVOURS))}")
    rtx, full = FLAVOURS["rtx"], FLAVOURS["full"]
    if not targets and _imported(full.module) is not None and (devices() or _imported(rtx.module) is None):
        return full
    return rtx


def flavour_of_file(content: bytes) -> Flavour | None:
    """Which flavour wrote an engine; None of what is no engine."""
    if content[1:4] != b"trt":
        return None
    return next(flavour for flavour in FLAVOURS.values() if content.startswith(flavour.begins))


def _imported(module: str) -> Any:
    try:
        return import_module(module)
    except (ImportError, OSError):  # the latter of a package whose libraries are missing
        return None
