"""Folded layers compute what their parametrised layers compute, and those stay as they are."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from zellige.engine.layers.batch_invariance import BatchInvariantLinear
from zellige.engine.layers.convolutions import PaddedConv
from zellige.engine.rewrite.fold_weight import fold_weight
from zellige.errors import ShapeError

from .judge import assert_exact, layer, random

LAYERS = {
    "convolution": (nn.Conv2d, (3, 5, 3)),
    "transposed convolution": (nn.ConvTranspose2d, (3, 5, 4, 2, 1)),
    "padded convolution": (PaddedConv, (3, 5, "replicate")),
    "linear": (nn.Linear, (6, 5)),
    "batch-invariant linear": (BatchInvariantLinear, (6, 5)),
}
each_layer = pytest.mark.parametrize("name", LAYERS)


def subject(name: str) -> tuple[nn.Module, Tensor]:
    kind, sizes = LAYERS[name]
    return layer(kind, *sizes), random(3, 6) if "linear" in name else random(2, 3, 5, 6)


def called(module: nn.Module, x: Tensor) -> Tensor:
    return module(x)


@each_layer
@pytest.mark.parametrize("norm", [spectral_norm, weight_norm])
def test_a_parametrised_weight_becomes_a_plain_one(name: str, norm: object) -> None:
    trained, x = subject(name)
    kind = type(trained)
    trained = norm(trained).eval()
    assert_exact(fold_weight, trained, called, x)
    folded = fold_weight(trained)
    assert type(folded) is kind and set(folded.state_dict()) == {"weight", "bias"}
    assert parametrize.is_parametrized(trained, "weight")


def test_a_layer_in_training_takes_no_step() -> None:
    trained = spectral_norm(layer(nn.Conv2d, 3, 5, 3)).train()
    before = copy.deepcopy(trained.state_dict())
    folded = fold_weight(trained)
    assert trained.training and all(torch.equal(before[name], value) for name, value in trained.state_dict().items())
    torch.testing.assert_close(folded.weight, trained.eval().weight)


@each_layer
def test_a_plain_layer_is_copied(name: str) -> None:
    trained, x = subject(name)
    folded = fold_weight(trained)
    assert torch.equal(folded(x.float()), trained(x.float()))
    assert folded.weight.data_ptr() != trained.weight.data_ptr() and trained.weight.requires_grad


def test_narrow_weights_are_rounded_once() -> None:
    trained = spectral_norm(layer(nn.Conv2d, 3, 5, 3)).eval().to(torch.bfloat16)
    folded = fold_weight(trained)
    assert folded.weight.dtype == torch.bfloat16
    assert torch.equal(folded.weight, copy.deepcopy(trained).double().weight.to(torch.bfloat16))


def test_refuses_other_layers() -> None:
    with pytest.raises(ShapeError) as error:
        fold_weight(nn.BatchNorm2d(3))
    expected = "The layer is BatchNorm2d; it must be one of nn.Conv2d, nn.ConvTranspose2d, nn.Linear."
    assert str(error.value) == expected


def test_refuses_hooks_that_change_what_a_layer_computes() -> None:
    with pytest.raises(ShapeError) as error:
        fold_weight(torch.nn.utils.spectral_norm(nn.Conv2d(3, 5, 3)))
    assert str(error.value) == "The layer Conv2d has forward hooks, which would be lost; remove them first."
