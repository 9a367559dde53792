"""Constants of a network cost nothing until it gets its weights, and then are what they always were."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from zellige.engine.layers.constants import fill_constants, register_constant

UP_TO_3 = partial(torch.arange, 3.0)


class Table(nn.Module):
    table: Tensor

    def __init__(self, make: Callable[[], Tensor] = UP_TO_3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        register_constant(self, "table", (3,), make)


def test_a_constant_is_there_at_once_and_in_no_state() -> None:
    assert torch.equal(Table().table, torch.arange(3.0)) and list(Table().state_dict()) == ["weight"]


def test_on_the_meta_device_nothing_is_computed() -> None:
    with torch.device("meta"):
        table = Table(lambda: pytest.fail("the constant was computed")).table
    assert table.is_meta and table.shape == (3,) and table.dtype == torch.float32


def assigned(network: nn.Module) -> nn.Module:
    network.load_state_dict({"0.weight": torch.ones(2)}, assign=True)
    return network


@pytest.mark.parametrize("given", [assigned, lambda network: network.to_empty(device="cpu")], ids=["assigned", "empty"])
def test_it_is_filled_when_the_network_has_its_weights(given: Callable[[nn.Module], nn.Module]) -> None:
    with torch.device("meta"):
        network = nn.Sequential(Table())
    given(network)
    fill_constants(network)
    assert torch.equal(network[0].table, torch.arange(3.0))


def test_its_dtype_is_kept() -> None:
    network = nn.Sequential(Table()).double()
    fill_constants(network)
    assert network[0].table.dtype == torch.float64
