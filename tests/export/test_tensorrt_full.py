"""Full TensorRT builds for the GPU at hand."""

import sys
from functools import partial

import pytest

from zellige.engine.runtimes.buckets import BUCKETS
from zellige.engine.tensorrt import build
from zellige.engine.tensorrt.driver import devices
from zellige.errors import CheckpointError, DeviceError

from ..engine.tensorrt.stand_in_cuda import devices as devices_of_driver
from .building import builds, refused
from .graphs import FLOAT, HALF, convolution, gated, relu

build_engine = partial(build.build_engine, profile=BUCKETS)

without_gpu = pytest.mark.skipif(bool(devices()), reason="there is a CUDA device, which full TensorRT builds for")


def test_full_with_targets() -> None:
    refused(
        DeviceError,
        "TensorRT builds for the GPU at hand, and not for sm_86, sm_90; leave the targets out, or take the flavour "
        "'rtx'",
        relu(),
        flavour="full",
        targets=["sm_86", "sm_90"],
    )


@without_gpu
def test_full_without_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", sys)  # any module: it must not be asked for anything
    refused(
        DeviceError,
        "TensorRT builds for the GPU at hand, and there is no CUDA device here; build where it will run, or take the "
        "flavour 'rtx', which builds for sm_75, sm_80, sm_86, sm_89, sm_120, sm_121 without one",
        relu(),
        flavour="full",
    )


@pytest.mark.gpu
@pytest.mark.needs_tensorrt
def test_full_builds_for_the_device_at_hand() -> None:
    report = build_engine(convolution(FLOAT), flavour="full").report
    assert (report["device"], report["targets"]) == (devices()[0].name, [devices()[0].capability])


@builds
class TestFull:
    """TensorRT-RTX under the name of full TensorRT, whose interface it shares, and a driver with a card."""

    @pytest.fixture(autouse=True)
    def card(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import tensorrt_rtx

        monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_rtx)
        devices_of_driver(monkeypatch, ("A large card", 9, 0))

    def test_builds_for_the_device_at_hand(self) -> None:
        report = build_engine(convolution(HALF), flavour="full").report
        assert (report["flavour"], report["device"], report["targets"]) == ("full", "A large card", ["sm_90"])

    def test_expands_functions_that_are_no_plugins(self) -> None:
        assert build_engine(gated(function=True), flavour="full").report["bytes"] > 10_000

    def test_refuses_our_nodes_whose_plugin_is_not_registered(self) -> None:
        refused(
            CheckpointError,
            "the ONNX model cannot be built: TensorRT cannot run the node 'the AffineRelu' (AffineRelu); export the "
            "model with other operators, or use the runtime 'onnx'",
            gated(function=False),
            flavour="full",
        )
