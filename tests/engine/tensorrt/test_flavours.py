import sys

import pytest

from zellige.engine.tensorrt.flavours import FLAVOURS, flavour_for, flavour_of_file
from zellige.errors import DeviceError

from .stand_in_cuda import devices

CARD = ("A card", 8, 6)


@pytest.mark.parametrize(
    ("installed", "card", "targets", "chosen"),
    [
        (("tensorrt", "tensorrt_rtx"), True, False, "full"),
        (("tensorrt", "tensorrt_rtx"), True, True, "rtx"),
        (("tensorrt", "tensorrt_rtx"), False, False, "rtx"),
        (("tensorrt_rtx",), True, False, "rtx"),
        (("tensorrt",), True, False, "full"),
        (("tensorrt",), False, False, "full"),  # which then says that there is no device
        ((), True, False, "rtx"),  # which then says that it is not installed
    ],
)
def test_the_flavour_is_the_one_that_fits(
    installed: tuple[str, ...], card: bool, targets: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, sys if name in installed else None)
    devices(monkeypatch, *([CARD] if card else []))
    assert flavour_for(None, targets, "tests").name == chosen


def test_a_name_is_taken_at_its_word(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [flavour_for(name, False, "tests").name for name in ("rtx", "full")] == ["rtx", "full"]
    with pytest.raises(DeviceError, match="^there is no flavour 'RTX' of TensorRT; use 'rtx' or 'full'$"):
        flavour_for("RTX", False, "tests")


@pytest.mark.parametrize(
    ("content", "name"),
    [(b"vtrt\0\0", "rtx"), (b"ftrt\0\0", "full"), (b"ptrt", "full"), (b"", None), (b"\x08\x0atrt", None)],
)
def test_a_file_tells_which_flavour_wrote_it(content: bytes, name: str | None) -> None:
    flavour = flavour_of_file(content)
    assert (flavour and flavour.name) == name


def test_the_targets_of_rtx_are_those_that_it_names() -> None:
    library = pytest.importorskip("tensorrt_rtx")
    named = {name.replace("SM", "sm_") for name in library.ComputeCapability.__members__ if name.startswith("SM")}
    assert set(FLAVOURS["rtx"].targets) == named
