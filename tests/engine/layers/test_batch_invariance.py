import copy
import pickle
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from zellige.engine.layers.batch_invariance import (
    BatchInvariantLinear,
    BatchInvariantPointConv,
    make_batch_invariant,
)
from zellige.engine.layers.norms import MapNorm
from zellige.engine.systems.onegan.blocks import VectorTable

from ..systems.onegan.tiny_onegan import normal


@pytest.fixture(autouse=True, params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def pickled(layer: nn.Module) -> nn.Module:
    made: nn.Module = pickle.loads(pickle.dumps(layer))
    return made


LAYERS = {
    "linear": (lambda: nn.Linear(300, 40), (300,)),
    "probabilities in a table": (lambda: VectorTable(300, 40), (300,)),
    "norm of a large map": (lambda: MapNorm(64, 32), (64, 32, 32)),
    "norm of a small map": (lambda: MapNorm(64, 4), (64, 4, 4)),
    "convolution of a small map": (lambda: nn.Conv2d(256, 64, 3, padding=1), (256, 4, 4)),
    "convolution of few channels": (lambda: nn.Conv2d(2, 3, 3, padding=1), (2, 64, 64)),
    "convolution of a larger map": (lambda: nn.Conv2d(24, 16, 3, padding=1), (24, 32, 32)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", LAYERS)
@torch.inference_mode()
def test_a_sample_has_the_same_bits_in_any_batch(kind: str, dtype: torch.dtype) -> None:
    build, shape = LAYERS[kind]
    torch.manual_seed(0)
    layer, x = build().to(dtype).eval(), normal(19, *shape, dtype=dtype)
    if len(shape) == 3:
        x = x.contiguous(memory_format=torch.channels_last)
    plain = layer(x)
    make_batch_invariant(layer)
    y = layer(x)
    torch.testing.assert_close(y, plain)
    for count in (1, 2, 3, 16, 17):
        assert torch.equal(layer(x[:count]), y[:count])
    assert torch.equal(layer(x[17:18]), y[17:18])


def test_classes_are_still_looked_up() -> None:
    table = VectorTable(7, 4).eval()
    expected = table(torch.tensor([5, 2]))
    make_batch_invariant(table)
    assert torch.equal(table(torch.tensor([5, 2])), expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled], ids=["deep", "pickle"])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_copy_computes_with_its_own_weights(kind: str, copied: Callable[[nn.Module], nn.Module]) -> None:
    build, shape = LAYERS[kind]
    layer = build().eval()
    names = list(layer.state_dict())
    make_batch_invariant(layer)
    other = copied(layer)
    for parameter in other.parameters():
        nn.init.zeros_(parameter)
    x = normal(1, *shape)
    assert not other(x).any() and layer(x).any()
    assert names == list(layer.state_dict()) == list(other.state_dict())


@pytest.mark.parametrize("inputs", [5, 96, 128])
@pytest.mark.parametrize("outputs", [3, 16, 24, 40])
def test_rows_have_the_same_bits_with_any_number_of_threads(inputs: int, outputs: int) -> None:
    torch.manual_seed(0)
    linear, point = BatchInvariantLinear(inputs, outputs).eval(), BatchInvariantPointConv(inputs, outputs).eval()
    rows, image = torch.randn(308, inputs), torch.randn(1, inputs, 22, 14).to(memory_format=torch.channels_last)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3, 5):
            torch.set_num_threads(count)
            found.append((linear(rows), linear(rows[:77]), point(image), point(image[:, :, 3:9])))
    finally:
        torch.set_num_threads(threads)
    for whole, part, maps, some in found:
        assert torch.equal(whole, found[0][0]) and torch.equal(part, whole[:77])
        assert torch.equal(maps, found[0][2]) and torch.equal(some, maps[:, :, 3:9])
    torch.testing.assert_close(found[0][0], torch.nn.functional.linear(rows, linear.weight, linear.bias))
    expected = torch.nn.functional.conv2d(image, point.weight, point.bias)
    torch.testing.assert_close(found[0][2], expected, rtol=1e-5, atol=1e-5)
