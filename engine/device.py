"""The device and the precision that a model runs in, and the memory that the device has left."""

import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch

from zellige.errors import BudgetError, DeviceError

__all__ = [
    "DTYPES",
    "available_memory",
    "parse_bytes",
    "pick_device",
    "pick_precision",
    "precision_of",
    "processor",
    "show_bytes",
]

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}  # by precision
_UNITS = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def pick_device(name: str = "auto") -> torch.device:
    """The device that a name means; "auto" takes CUDA if this machine has it, else the CPU.

    Raises:
        DeviceError: the device does not exist here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"there is no device {name!r}; use auto, cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"the device {name!r} is not supported; use auto, cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError("this machine has no CUDA device that torch can use; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"there is no device {name!r}; the last one here is cuda:{torch.cuda.device_count() - 1}")
    return device


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """The dtype for a precision; "auto" takes bfloat16 if the hardware multiplies in it, else float32.

    Raises:
        DeviceError: no such precision, or float16 on a CPU.
    """
    if name == "auto":
        # torch.cuda.is_bf16_supported() counts emulation as support, and asks the current device only.
        native = _is_ampere(device) if device.type == "cuda" else cpu_has_bf16()
        return torch.bfloat16 if native else torch.float32
    if name not in DTYPES:
        raise DeviceError(f"there is no precision {name!r}; use auto, fp32, fp16 or bf16")
    if name == "fp16" and device.type == "cpu":
        raise DeviceError("fp16 is not offered on a CPU, where it is slower than fp32; use fp32 or bf16")
    return DTYPES[name]


def precision_of(dtype: torch.dtype) -> str:
    """The name of the precision of a dtype: fp32, fp16 or bf16."""
    return next(name for name, own in DTYPES.items() if own == dtype)


def _is_ampere(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) >= (8, 0)


def cpu_has_bf16() -> bool:
    """Whether the CPU has bfloat16 dot products (AVX512-BF16, AMX, or Arm's BF16)."""
    flags = set(_read(Path("/proc/cpuinfo")).split())
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def available_memory(device: torch.device, root: Path = Path("/")) -> int:
    """Free bytes of the device's memory; on a CPU the kernel's MemAvailable, within the limits of control groups.

    Args:
        device: a CPU or a CUDA device.
        root: the folder below which proc/ and sys/ are read.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if match := re.search(r"MemAvailable:\s+(\d+) kB", _read(root / "proc/meminfo")):
        free = int(match[1]) * 1024
    return min([free, *_left_in_groups(root)])


@dataclass(frozen=True)
class _Groups:
    """One of the two versions of control groups.

    Attributes:
        entry: its line in /proc/self/cgroup, up to the group's path.
        folder: the place where the groups are mounted.
        limit, used: names of a group's files that hold its limit and its use in bytes; a limit may be the word "max".
        cached: keys of memory.stat for the page cache, which the kernel counts as used and frees on demand.
    """

    entry: str
    folder: str
    limit: str
    used: str
    cached: tuple[str, str]


_GROUPS = (
    _Groups(r"0::", "sys/fs/cgroup", "memory.max", "memory.current", ("inactive_file", "active_file")),
    _Groups(
        r"\d+:(?:[\w,]+,)?memory(?:,[\w,]+)?:", "sys/fs/cgroup/memory", "memory.limit_in_bytes",
        "memory.usage_in_bytes", ("total_inactive_file", "total_active_file"),
    ),
)  # fmt: skip


def _left_in_groups(root: Path) -> Iterator[int]:
    """The bytes left in this process's control group and in each group around it that has a limit."""
    own = _read(root / "proc/self/cgroup")
    for version in _GROUPS:
        if match := re.search(rf"^{version.entry}(/.*)$", own, re.MULTILINE):
            path = PurePosixPath(match[1])
            # A container may see its own group mounted as the root. No folder lies at the group's path then.
            for group in (path, *path.parents):
                folder = root / version.folder / str(group).lstrip("/")
                limit, used = _read(folder / version.limit).strip(), _read(folder / version.used).strip()
                if limit.isdigit() and used.isdigit():
                    cached = re.findall(rf"^(?:{'|'.join(version.cached)}) (\d+)$", _read(folder / "memory.stat"), re.M)
                    yield max(int(limit) - int(used) + sum(map(int, cached)), 0)


def _read(path: Path) -> str:
    """The text of a file of the Linux kernel; empty on systems that lack the file."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def parse_bytes(text: str | int) -> int:
    """Bytes from "512MiB", "2GiB" or plain bytes.

    Raises:
        BudgetError: the text is not a positive size in these units.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(text).lower())
    # At most 20 digits, because a float of 400 digits is infinite.
    if match and match[2] in _UNITS and len(match[1]) <= 20 and (size := int(float(match[1]) * _UNITS[match[2]])) > 0:
        return size
    raise BudgetError(f"{text!r} is no amount of memory; write it as 512MiB, 2GiB or a number of bytes")


def show_bytes(count: int) -> str:
    """Bytes as text for people, rounded up to whole MiB so that a size from an error message suffices as a budget."""
    return f"{-(-count // 2**20)}MiB"


def processor() -> str:
    """The CPU's name as the operating system reports it."""
    lines = _read(Path("/proc/cpuinfo")).splitlines()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
