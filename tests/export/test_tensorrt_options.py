"""Targets, profiles and flavours that cannot be are refused in a sentence."""

import sys
from functools import partial
from typing import Any

import pytest

from zellige.engine.runtimes.buckets import BUCKETS
from zellige.engine.tensorrt import build
from zellige.errors import DeviceError, MissingExtraError, SizeError

from .building import builds, refused
from .graphs import BFLOAT16, FLOAT, convolution, relu

build_engine = partial(build.build_engine, profile=BUCKETS)


@builds
class TestRefusedOptions:
    @pytest.mark.parametrize("target", ["sm_90", "sm_100", "sm_87", "86"])
    def test_targets_that_it_does_not_build_for(self, target: str) -> None:
        refused(
            DeviceError,
            f"TensorRT-RTX does not build for {target}; it does for sm_75, sm_80, sm_86, sm_89, sm_120, sm_121. Full "
            "TensorRT builds for the GPU at hand, whatever it is: take the flavour 'full' there",
            relu(),
            targets=["sm_86", target],
        )

    def test_bfloat16_on_a_target_without_it(self) -> None:
        refused(
            DeviceError,
            "the ONNX model computes in bfloat16, which sm_75 does not have; leave sm_75 out, or export it in fp16",
            convolution(BFLOAT16),
            targets=["sm_75", "sm_86"],
        )

    @pytest.mark.parametrize(
        ("profile", "shown"),
        [((0, 1, 2), "0,1,2"), ((2, 1, 4), "2,1,4"), ((1, 8, 4), "1,8,4"), ([(1, 2, 3), (1, 2)], "1,2")],
    )
    def test_profiles_that_do_not_ascend(self, profile: Any, shown: str) -> None:
        refused(
            SizeError,
            f"the profile {shown} is not the least, usual and largest batch in ascending order, each 1 or more; write "
            "it as 1,8,32",
            relu(),
            profile=profile,
        )

    def test_no_profile(self) -> None:
        refused(
            SizeError,
            "an engine needs a profile: least, usual and largest batch, such as 1,8,32",
            relu(),
            profile=[],
        )

    def test_other_batches_than_the_models_own(self) -> None:
        refused(
            SizeError,
            "the input 'x' of the ONNX model has a fixed batch of 4, and the profile 1,8,32 asks for others; export it "
            "with any batch, or take 4,4,4",
            convolution(FLOAT, 4),
        )


def test_a_flavour_that_does_not_exist() -> None:
    refused(
        DeviceError, "there is no flavour 'lite' of TensorRT; use 'rtx' or 'full'", relu(), flavour="lite"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("flavour", "package", "extra"),
    [("rtx", "tensorrt_rtx", "tensorrt-rtx"), ("full", "tensorrt", "tensorrt"), (None, "tensorrt_rtx", "tensorrt-rtx")],
)
def test_a_flavour_that_is_not_installed(
    flavour: Any, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=rf"'{package}'; install it with: pip install 'zellige\[{extra}\]'$"):
        build_engine(relu(), flavour=flavour)
