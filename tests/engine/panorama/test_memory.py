import mmap
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from zellige.engine.device import parse_bytes, show_bytes
from zellige.engine.panorama.memory import live_bytes, measured_peak, resident_bytes
from zellige.errors import BudgetError

MIB = 2**20
linux = pytest.mark.skipif(sys.platform != "linux", reason="the resident set's high-water mark is Linux's")
sizes = st.integers(1, 2**40)


def two_layers() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1)).requires_grad_(False)


def pictures(batch: int) -> tuple[torch.Tensor]:
    return (torch.empty(batch, 3, 16, 16),)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_live_bytes_equal_a_count_by_hand(batch: int) -> None:
    # The first layer's output and its rectified copy live together: 8 + 8 maps; later 8 + 4.
    assert live_bytes(two_layers(), pictures, batch) == batch * (8 + 8) * 16 * 16 * 4


def test_work_in_place_costs_nothing() -> None:
    layers = two_layers()
    layers[1].inplace = True
    assert live_bytes(layers, pictures, 1) == (8 + 4) * 16 * 16 * 4


def test_live_bytes_do_not_depend_on_what_is_alive_already() -> None:
    layers = two_layers()
    kept = [layers(torch.zeros(1, 3, 16, 16)) for _ in range(3)]
    assert live_bytes(layers, pictures, 1) == 16 * 16 * 16 * 4
    del kept


def test_live_bytes_leave_the_module_to_threads_that_run_it() -> None:
    layers, seen = two_layers(), list[type]()
    layers[1].register_forward_hook(lambda *_: seen.append(type(layers[2].weight)))
    live_bytes(layers, pictures, 1)
    assert seen == [nn.Parameter]


def test_live_bytes_take_no_memory() -> None:
    # A petabyte: a real allocation would fail.
    assert live_bytes(two_layers(), pictures, 2**36) == 2**36 * 16 * 16 * 16 * 4


@given(st.integers(1, 64), st.integers(1, 64))
def test_live_bytes_grow_linearly(a: int, b: int) -> None:
    layers = two_layers()
    one = live_bytes(layers, pictures, 1)
    assert [live_bytes(layers, pictures, n) for n in (a, b)] == [a * one, b * one]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("512MiB", 512 * MIB),
        ("2GiB", 2 * 2**30),
        ("1TiB", 2**40),
        ("3kib", 3 * 1024),
        (" 1.5 gib ", 3 * 2**29),
        ("1048576", MIB),
        (1048576, MIB),
        ("7b", 7),
    ],
)
def test_amounts_of_memory(text: str | int, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize(
    "text",
    ["", "much", "-1", "0", "0MiB", "1MB", "2G", "1e9", "1,5GiB", "1.GiB", "0.1", "MiB", "1 2", "inf", "nan", -5, 0,
     "9" * 400 + ".0GiB"],
)  # fmt: skip
def test_other_amounts_are_refused(text: str | int) -> None:
    with pytest.raises(BudgetError, match="is no amount of memory; write it as 512MiB, 2GiB or a number of bytes"):
        parse_bytes(text)


@given(sizes)
def test_a_size_that_is_shown_suffices(count: int) -> None:
    assert count <= parse_bytes(show_bytes(count)) < count + MIB


@linux
def test_the_peak_of_a_block_is_seen_though_it_is_freed_again() -> None:
    with measured_peak(torch.device("cpu")) as peak:
        block = np.ones(64 * MIB, np.uint8)
        del block
    assert 0.75 * 64 * MIB < peak.bytes < 1.25 * 64 * MIB


@linux
def test_an_earlier_peak_does_not_count() -> None:
    np.ones(128 * MIB, np.uint8)
    with measured_peak(torch.device("cpu")) as peak:
        np.ones(MIB, np.uint8)
    assert peak.bytes < 32 * MIB


@linux
def test_the_peak_is_known_after_an_exception() -> None:
    with pytest.raises(KeyError), measured_peak(torch.device("cpu")) as peak:
        block = np.ones(64 * MIB, np.uint8)
        raise KeyError
    assert peak.bytes > 0.75 * 64 * MIB
    del block


@linux
def test_the_resident_set_grows_with_what_is_touched() -> None:
    before = resident_bytes()
    block = mmap.mmap(-1, 32 * MIB)  # the heap might have that much to give already
    np.frombuffer(block, np.uint8)[:] = 1
    assert 0.75 * 32 * MIB < resident_bytes() - before < 1.5 * 32 * MIB
    del block
