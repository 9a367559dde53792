"""The table of differences between TensorRT and TensorRT-RTX, which share one interface."""

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
        title: the name for people.
        module: the Python module of the library.
        extra: the extra of this package that installs the library.
        targets: the GPUs that it builds for without having them; empty if it builds only for the GPU at hand.
        usual: the targets if none are asked for.
        plugins: whether nodes of other domains may be plugins. In TensorRT-RTX a registered plugin ends the process.
        begins: the first bytes of its files.
        flags: names of the builder's flags that are set.
        eager: whether kernels are compiled on the machine that runs the engine. They must then be compiled before the
            work is captured, and not in the background, because an image's last bits would depend on when it was made.
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
        """Import the library's module.

        Raises:
            MissingExtraError: it is not installed; `purpose` says in the message why it is needed.
        """
        module = _imported(self.module)
        if module is None:
            raise MissingExtraError(self.module, purpose, self.extra)
        return module


_RTX_TARGETS = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_120", "sm_121")
FLAVOURS: dict[FlavourName, Flavour] = {
    # sm_75 is not usual, because it has no bfloat16. Work can be captured only if the caller allocates the memory.
    "rtx": Flavour(
        "rtx", "TensorRT-RTX", "tensorrt_rtx", "tensorrt-rtx", _RTX_TARGETS, _RTX_TARGETS[1:], plugins=False,
        begins=b"vtrt", flags=("REQUIRE_USER_ALLOCATION",), eager=True,
    ),
    "full": Flavour(
        "full", "TensorRT", "tensorrt", "tensorrt", (), (), plugins=True, begins=b"", flags=(), eager=False
    ),
}  # fmt: skip


def flavour_for(name: str | None, targets: bool, purpose: str) -> Flavour:
    """The flavour of this name, or the installed one that fits: full TensorRT if there is a GPU to build for.

    Args:
        name: "rtx", "full", or None to choose.
        targets: whether GPUs to build for are named, which only TensorRT-RTX allows.
        purpose: the purpose that an error names.
    Raises:
        DeviceError: there is no such flavour.
        MissingExtraError: none is installed.
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
    """The flavour that wrote an engine; None if the content is no engine."""
    if content[1:4] != b"trt":
        return None
    return next(flavour for flavour in FLAVOURS.values() if content.startswith(flavour.begins))


def _imported(module: str) -> Any:
    try:
        return import_module(module)
    except (ImportError, OSError):  # OSError: the package is there and its shared libraries are missing
        return None
