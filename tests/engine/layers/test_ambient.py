"""What a host program has set is off inside, and on again afterwards."""

import threading

import pytest
import torch

from zellige.engine.layers.ambient import own_modes

from .modes import MODES, default_dtype


def state() -> tuple[object, ...]:
    autocast = torch.is_autocast_enabled("cpu"), torch.is_inference_mode_enabled()
    return *autocast, torch.get_default_dtype(), torch.get_default_device()


OWN = (False, False, torch.float32, torch.device("cpu"))


@pytest.mark.parametrize("mode", MODES)
def test_modes_of_the_host_are_off_inside_and_on_again(mode: str) -> None:
    with MODES[mode]():
        before = state()
        assert before != OWN
        with own_modes():
            assert state() == OWN
        assert state() == before
        with pytest.raises(KeyError), own_modes():
            raise KeyError
        assert state() == before


def test_the_default_dtype_stays_until_the_last_thread_is_done() -> None:
    inside, leave = threading.Event(), threading.Event()

    def longer() -> None:
        with own_modes():
            inside.set()
            leave.wait(10)

    with default_dtype(torch.float64):
        thread = threading.Thread(target=longer)
        with own_modes():
            thread.start()
            assert inside.wait(10)
        assert torch.get_default_dtype() == torch.float32
        leave.set()
        thread.join()
        assert torch.get_default_dtype() == torch.float64


def test_it_decorates_functions() -> None:
    @own_modes()
    def product() -> torch.dtype:
        return (torch.ones(2, 2) @ torch.ones(2, 2)).dtype

    with torch.autocast("cpu"):
        assert [product(), product()] == [torch.float32] * 2
