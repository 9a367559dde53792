"""The generator's halves are the whole, and its form for inference computes what was trained."""

import pytest
import torch

from zellige.engine.layers.equalised import ActivatedConv, EqualisedConv, EqualisedLinear, fold_gains
from zellige.engine.layers.modulated import ScaledConv, StyledConv, modulated_conv
from zellige.engine.systems.stylegan2.discriminator import Discriminator, minibatch_deviation
from zellige.errors import SizeError

from .tiny_stylegan2 import config, generator

LATENTS = torch.randn(3, 16, generator=torch.Generator().manual_seed(3))


def styles_of(made: torch.nn.Module, psi: float = 1.0) -> torch.Tensor:
    return made.styles(made.map(LATENTS), psi)


@pytest.mark.parametrize("after", ["conv", "up"])
@pytest.mark.parametrize("side", [8, 16])
def test_the_halves_are_the_whole(side: int, after: str) -> None:
    made = generator()
    styles = styles_of(made)
    halfway = made.begin(styles, side=side, after=after)
    assert halfway.map.shape == (3, 16, side, side) and halfway.rgb.shape == (3, 3, side, side)
    torch.testing.assert_close(made.finish(halfway, styles), made.synthesise(styles))


def test_the_first_block_has_no_image_before_it() -> None:
    made = generator()
    styles = styles_of(made)
    halfway = made.begin(styles, side=4)
    assert halfway.rgb is None
    torch.testing.assert_close(made.finish(halfway, styles), made.synthesise(styles))
    with pytest.raises(SizeError, match="of 16 pixels has no block of 32 pixels"):
        made.begin(styles, side=32)


@pytest.mark.parametrize("clamp", [None, 0.5])
@pytest.mark.parametrize("raw", [True, False])
def test_scaled_activations_compute_what_scaled_weights_did(raw: bool, clamp: float | None) -> None:
    made = generator(raw_epsilon=raw, clamp=clamp)
    before = made(LATENTS, 0.7)
    made.scale_activations()
    torch.testing.assert_close(made(LATENTS, 0.7), before, atol=1e-5, rtol=1e-5)
    assert clamp is None or made.begin(styles_of(made)).map.abs().max() == clamp


def test_scaling_activations_is_a_grouped_convolution_of_scaled_weights() -> None:
    random = torch.Generator().manual_seed(0)
    x, style = torch.randn(3, 5, 6, 6, generator=random), torch.randn(3, 5, generator=random)
    weight = torch.randn(7, 5, 3, 3, generator=random)
    scaled = weight * style[:, None, :, None, None]
    scaled = scaled * (scaled.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    grouped = torch.nn.functional.conv2d(x.flatten(0, 1)[None], scaled.flatten(0, 1), padding=1, groups=3)
    torch.testing.assert_close(modulated_conv(x, weight, style), grouped.unflatten(1, (3, 7))[0])


def test_float16_scales_styles_so_that_none_overflows() -> None:
    layer = StyledConv(8, 8, 4, 6)
    with torch.no_grad():
        layer.style.bias.fill_(3e4)
    x, w = torch.randn(1, 8, 4, 4), torch.zeros(1, 6)
    wide, half = layer.scaled(), ScaledConv(layer)
    half.conv.half()
    expected = wide(x, w)
    torch.testing.assert_close(half(x.half(), w).float(), expected, atol=2e-2, rtol=2e-2)


def test_psi_moves_styles_to_their_mean() -> None:
    made = generator()
    w = made.map(LATENTS)
    assert torch.equal(made.styles(w)[:, 0], w) and made.styles(w).shape == (3, 6, 12)
    torch.testing.assert_close(made.styles(w, 0.0), made.w_avg.expand(3, 6, 12))
    cut = made.styles(w, 0.5, cutoff=2)
    torch.testing.assert_close(cut[:, 1], made.w_avg + 0.5 * (w - made.w_avg))
    torch.testing.assert_close(cut[:, 2:], w[:, None].expand(-1, 4, -1))
    beyond = made.styles(w, 1.5)
    torch.testing.assert_close(beyond[:, 3], made.w_avg + 1.5 * (w - made.w_avg))


def test_given_noise_replaces_the_stored_maps() -> None:
    made = generator()
    styles = styles_of(made)
    stored = [layer.noise[None, None] for layer in made.modules() if isinstance(layer, StyledConv)]
    sides = [tuple(noise.shape[2:]) for noise in stored]
    assert sorted(sides) == sorted((side, side) for side in made.config.noise_sides)
    ordered = [made.b4.conv, made.b8.up, made.b8.conv, made.b16.up, made.b16.conv]
    same = made.synthesise(styles, [layer.noise[None, None] for layer in ordered])
    torch.testing.assert_close(same, made.synthesise(styles))
    other = made.synthesise(styles, [torch.zeros(1, 1, side, side) for side in made.config.noise_sides])
    assert (other - same).abs().max() > 0.1


def test_equalised_layers_fold_into_plain_ones() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        EqualisedConv(3, 5, padding=1), ActivatedConv(5, 6, padding=1), torch.nn.Flatten(),
        EqualisedLinear(6 * 16, 4, rate=0.01, bias=0.3),
    )  # fmt: skip
    with torch.no_grad():
        network[0].bias.fill_(0.4)
        network[1].bias.fill_(-0.2)
    x = torch.randn(2, 3, 4, 4)
    before = network(x)
    fold_gains(network)
    assert not any(isinstance(part, EqualisedConv | EqualisedLinear) for part in network.modules())
    torch.testing.assert_close(network(x), before)


def test_discriminator_sees_how_samples_of_a_group_differ() -> None:
    values = torch.arange(8.0)[:, None, None, None]
    assert minibatch_deviation(values)[:, 1].flatten().tolist() == pytest.approx([5**0.5] * 8, abs=1e-5)
    assert minibatch_deviation(values, 16)[:, 1].flatten().tolist() == pytest.approx([5.25**0.5] * 8, abs=1e-5)
    assert minibatch_deviation(torch.zeros(5, 1, 1, 1)).shape == (5, 2, 1, 1)  # no group of 4: one of 1
    judge = Discriminator(config())
    assert judge(torch.randn(4, 3, 16, 16)).shape == (4,)
