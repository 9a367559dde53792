"""Which device and which precision a model runs in, and how much memory there is."""

import os
import platform
import re
from pathlib import Path

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
    """The device for a name: "auto" takes CUDA where there is one, else the CPU.

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
    """The dtype for a precision; "auto" takes bfloat16 where the hardware multiplies in it, else float32.

    Raises:
        DeviceError: no such precision, or float16 on a CPU.
    """
    if name == "auto":
        native = torch.cuda.is_bf16_supported() if device.type == "cuda" else cpu_has_bf16()
        return torch.bfloat16 if native else torch.float32
    if name not in DTYPES:
        raise DeviceError(f"there is no precision {name!r}; use auto, fp32, fp16 or bf16")
    if name == "fp16" and device.type == "cpu":
        raise DeviceError("fp16 is not offered on a CPU, where it is slower than fp32; use fp32 or bf16")
    return DTYPES[name]


def precision_of(dtype: torch.dtype) -> str:
    """The name of the precision of a dtype: fp32, fp16 or bf16."""
    return next(name for name, own in DTYPES.items() if own == dtype)


def cpu_has_bf16() -> bool:
    """Whether the CPU has bfloat16 dot products (AVX512-BF16, AMX, or Arm's BF16)."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split())
    except OSError:
        return False
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def available_memory(device: torch.device) -> int:
    """Free bytes of the device's memory; on a CPU what the kernel calls available, within the control group's limit."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        match = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"))
        if match:
            free = int(match[1]) * 1024
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        if limit != "max":
            used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
            free = min(free, max(int(limit) - used, 0))
    except OSError:
        pass
    return free


def parse_bytes(text: str | int) -> int:
    """Bytes from "512MiB", "2GiB" or plain bytes.

    Raises:
        BudgetError: it is no positive size in these units.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(text).lower())
    # Up to 20 digits, because a float of 400 is infinite.
    if match and match[2] in _UNITS and len(match[1]) <= 20 and (size := int(float(match[1]) * _UNITS[match[2]])) > 0:
        return size
    raise BudgetError(f"{text!r} is no amount of memory; write it as 512MiB, 2GiB or a number of bytes")


def show_bytes(count: int) -> str:
    """Bytes for people, rounded up to whole MiB so that a size that is shown always suffices."""
    return f"{-(-count // 2**20)}MiB"


def processor() -> str:
    """The CPU's name, as the system has it."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
