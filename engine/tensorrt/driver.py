"""Asks the driver for the CUDA devices, because libraries log nonsense or end the process without a driver."""

import ctypes
import sys
from dataclasses import dataclass
from typing import Any

__all__ = ["Device", "devices"]

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


@dataclass(frozen=True)
class Device:
    """A CUDA device.

    Attributes:
        name: the driver's name of it, such as "NVIDIA H200".
        capability: its compute capability, such as "sm_90".
    """

    name: str
    capability: str


def devices() -> tuple[Device, ...]:
    """The CUDA devices that this process may use, in the driver's order; none without a working driver."""
    try:
        driver = ctypes.CDLL(_LIBRARY)
    except OSError:
        return ()
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return ()
    return tuple(_device(driver, number) for number in range(count.value))


def _device(driver: Any, number: int) -> Device:
    handle, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    driver.cuDeviceGet(ctypes.byref(handle), number)
    driver.cuDeviceGetName(name, len(name), handle)
    capability = []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int()
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, handle)
        capability.append(str(value.value))
    return Device(name.value.decode(errors="replace"), f"sm_{''.join(capability)}")
