"""A layer with its batch norm folded in computes what both did at inference."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from zellige.engine.layers.batch_invariance import BatchInvariantLinear
from zellige.engine.layers.convolutions import PaddedConv
from zellige.engine.rewrite.fold_norm import fold_norm, fold_norms
from zellige.errors import ShapeError

from .judge import assert_exact, layer, random

MAP, ROWS = random(2, 4, 5, 6), random(3, 4)
CASES = {
    "convolution": (nn.Conv2d, {"kernel_size": 3, "padding": 1}, MAP),
    "without a bias": (nn.Conv2d, {"kernel_size": 3, "padding": 1, "bias": False}, MAP),
    "strides and groups": (nn.Conv2d, {"kernel_size": 4, "stride": 2, "groups": 2}, MAP),
    "circular": (nn.Conv2d, {"kernel_size": 3, "padding": 1, "padding_mode": "circular"}, MAP),
    "transposed": (nn.ConvTranspose2d, {"kernel_size": 4, "stride": 2, "padding": 1}, MAP),
    "transposed groups": (nn.ConvTranspose2d, {"kernel_size": 3, "groups": 2}, MAP),
    "linear": (nn.Linear, {}, ROWS),
    "batch-invariant": (BatchInvariantLinear, {}, ROWS),
}


def trained_norm(channels: int, *, affine: bool = True, rows: bool = False) -> nn.Module:
    kind = nn.BatchNorm1d if rows else nn.BatchNorm2d
    norm = layer(kind, channels, affine=affine)
    random_numbers = torch.Generator().manual_seed(5)
    nn.init.normal_(norm.running_mean, generator=random_numbers)
    nn.init.uniform_(norm.running_var, 0.1, 3, generator=random_numbers)
    return norm


def folded(pair: nn.Sequential) -> nn.Module:
    return fold_norm(*pair)


def called(module: nn.Module, x: Tensor) -> Tensor:
    return module(x)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("affine", [True, False])
def test_equals_the_layer_and_its_norm(name: str, affine: bool) -> None:
    kind, sizes, x = CASES[name]
    trained = layer(kind, 4, 6, **sizes)
    assert_exact(folded, nn.Sequential(trained, trained_norm(6, affine=affine, rows=x.dim() == 2)).eval(), called, x)


@pytest.mark.parametrize("padding", ["zeros", "replicate", "none"])
def test_takes_the_padded_convolution_of_coco_gan(padding: str) -> None:
    pair = nn.Sequential(layer(PaddedConv, 4, 6, padding), trained_norm(6)).eval()
    assert_exact(folded, pair, called, MAP)
    assert type(folded(pair)) is PaddedConv


def test_spectral_norm_is_folded_in() -> None:
    pair = nn.Sequential(spectral_norm(layer(nn.Conv2d, 4, 6, 3)), trained_norm(6)).eval()
    assert_exact(folded, pair, called, MAP)


def test_a_norm_in_training_gives_its_running_statistics() -> None:
    pair = nn.Sequential(layer(nn.Conv2d, 4, 6, 3), trained_norm(6)).train()
    y = folded(pair)(MAP.float())
    assert pair.training and pair[1].num_batches_tracked == 0
    torch.testing.assert_close(y, pair.eval()(MAP.float()).detach())


def test_weights_are_rounded_once_in_a_narrow_layer() -> None:
    conv, norm = layer(nn.Conv2d, 4, 6, 3).to(torch.bfloat16), trained_norm(6)
    narrow, wide = fold_norm(conv, norm), fold_norm(conv.float(), norm)
    assert torch.equal(narrow.weight, wide.weight.to(torch.bfloat16))
    assert torch.equal(narrow.bias, wide.bias.to(torch.bfloat16))


@pytest.mark.parametrize(
    ("first", "second", "sentence"),
    [
        (nn.Conv2d(4, 6, 3), nn.BatchNorm2d(4), "The norm has 4 channels; it must have the layer's 6."),
        (
            nn.Conv2d(4, 6, 3),
            nn.BatchNorm2d(6, track_running_stats=False),
            "The norm has no running statistics; it must be made with track_running_stats=True.",
        ),
        (
            nn.Conv2d(4, 6, 3),
            nn.GroupNorm(2, 6),
            "The layer is GroupNorm; it must be nn.BatchNorm1d or nn.BatchNorm2d, without a forward of its own.",
        ),
        (
            nn.ReLU(),
            nn.BatchNorm2d(6),
            "The layer is ReLU; it must be nn.Conv2d or nn.ConvTranspose2d or nn.Linear, without a forward of its own.",
        ),
    ],
)
def test_refuses_what_does_not_fold(first: nn.Module, second: nn.Module, sentence: str) -> None:
    with pytest.raises(ShapeError) as error:
        fold_norm(first, second)
    assert str(error.value) == sentence


def test_every_norm_behind_a_layer_of_a_sequence_is_folded() -> None:
    inner = nn.Sequential(layer(nn.ConvTranspose2d, 6, 4, kernel_size=4), trained_norm(4), nn.ReLU())
    network = nn.Sequential(layer(nn.Conv2d, 4, 6, kernel_size=3), trained_norm(6), nn.LeakyReLU(0.2), inner).eval()
    network, x = network.double(), MAP.double()
    before = network(x)
    fold_norms(network)
    assert [type(part) for part in network] == [nn.Conv2d, nn.LeakyReLU, nn.Sequential] and len(inner) == 2
    torch.testing.assert_close(network(x), before)


def test_a_norm_that_follows_no_layer_stays() -> None:
    network = nn.Sequential(nn.ReLU(), trained_norm(4), trained_norm(4)).eval()
    fold_norms(network)
    assert len(network) == 3
