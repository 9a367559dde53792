import ctypes
from typing import Any

import pytest
import torch

from zellige.engine.tensorrt import driver
from zellige.engine.tensorrt.driver import Device
from zellige.engine.tensorrt.driver import devices as found_devices

from .stand_in_cuda import Driver, devices


def test_names_and_capabilities_are_the_drivers(monkeypatch: pytest.MonkeyPatch) -> None:
    devices(monkeypatch, ("NVIDIA H200", 9, 0), ("Another", 12, 1))
    assert found_devices() == (Device("NVIDIA H200", "sm_90"), Device("Another", "sm_121"))


def test_a_driver_without_devices_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    devices(monkeypatch)
    assert found_devices() == ()


def test_a_driver_that_does_not_start_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Driver):
        def cuInit(self, flags: int) -> int:
            return 803  # the driver and the kernel's module are of different versions

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Broken(("A card", 8, 6)))
    assert found_devices() == ()


def test_without_a_driver_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        assert name == driver._LIBRARY
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert found_devices() == ()


def test_it_sees_the_devices_that_torch_sees() -> None:
    assert len(found_devices()) == torch.cuda.device_count()
    for number, device in enumerate(found_devices()):
        major, minor = torch.cuda.get_device_capability(number)
        assert device == Device(torch.cuda.get_device_name(number), f"sm_{major}{minor}")
