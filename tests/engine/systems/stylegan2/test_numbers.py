"""The networks compute numbers that were found on paper, or twice by other programs."""

import math

import pytest
import torch
from torch import Tensor, nn

from zellige.engine.layers.equalised import EqualisedLinear
from zellige.engine.layers.modulated import StyledConv, ToRgb, modulated_conv
from zellige.engine.layers.resampling import blur
from zellige.engine.systems.stylegan2.config import StyleGan2Config
from zellige.engine.systems.stylegan2.discriminator import Discriminator, minibatch_deviation
from zellige.engine.systems.stylegan2.generator import Generator, activated_rows
from zellige.kernels import fir_resample

FULL, HALF = (512, 512, 512, 512, 512, 256, 128, 64, 32), (512, 512, 512, 512, 256, 128, 64)


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def close(actual: Tensor, wanted: list[float] | list[list[float]] | float) -> None:
    torch.testing.assert_close(actual.double(), torch.tensor(wanted, dtype=torch.float64), atol=2e-6, rtol=1e-6)


def conv(weight: float, styles: tuple[float, ...] = (1, 2), side: int = 1, **how: bool) -> StyledConv:
    """A convolution to one channel with the same weight everywhere, whose style does not depend on w."""
    layer = StyledConv(len(styles), 1, side, w_dim=1, **how)
    nn.init.constant_(layer.weight, weight)
    nn.init.zeros_(layer.style.weight)
    layer.style.bias.copy_(torch.tensor(styles))
    return layer


def applied(layer: StyledConv, side: int = 1) -> Tensor:
    return layer(torch.ones(1, layer.weight.shape[1], side, side), torch.zeros(1, 1))[0, 0]


def test_latents_are_normed() -> None:
    generator = Generator(StyleGan2Config(channels=(1,), z_dim=4, w_dim=4, mapping_layers=1))
    layer = generator.mapping[0]
    assert isinstance(layer, EqualisedLinear)
    layer.weight.copy_(torch.eye(4) / layer.gain / math.sqrt(2))  # the layer is the identity
    w = generator.map(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    close(w[0], [0.365148, 0.730297, 1.095445, 1.460593])
    close(w.norm(), 2.0)


@pytest.mark.parametrize(("weight", "wanted"), [(100.0, 32.707107), (-100.0, -6.258579)])
def test_a_mapping_layer_scales_weights_and_biases(weight: float, wanted: float) -> None:
    layer = EqualisedLinear(512, 1, rate=0.01)
    nn.init.constant_(layer.weight, weight)
    nn.init.constant_(layer.bias, 50)
    close(activated_rows(layer(torch.ones(1, 512)))[0, 0], wanted)


def test_a_modulated_convolution_is_demodulated() -> None:
    close(applied(conv(1))[0, 0] / math.sqrt(2), 3 / math.sqrt(45))
    border = applied(conv(1, side=3), 3) / math.sqrt(2)
    close(border, [[1.788854, 2.683282, 1.788854], [2.683282, 4.024922, 2.683282], [1.788854, 2.683282, 1.788854]])


@pytest.mark.parametrize(("noise", "wanted"), [(2.0, 2.188090), (-2.0, -0.128067)])
def test_noise_and_bias_come_before_the_activation(noise: float, wanted: float) -> None:
    layer = conv(1)
    layer.noise_strength.fill_(0.5)
    layer.noise.fill_(noise)
    layer.bias.fill_(0.1)
    close(applied(layer)[0, 0], wanted)


@pytest.mark.parametrize(("raw", "wanted"), [(True, 0.442326), (False, 0.377964)])
def test_the_epsilon_is_added_to_raw_or_scaled_weights(raw: bool, wanted: float) -> None:
    close(applied(conv(1e-4, raw_epsilon=raw))[0, 0] / math.sqrt(2), wanted)


def test_rgb_is_not_demodulated() -> None:
    layer = ToRgb(512, w_dim=1)
    nn.init.ones_(layer.weight)
    nn.init.zeros_(layer.style.weight)
    nn.init.constant_(layer.bias, 0.25)
    close(layer(torch.ones(1, 512, 1, 1), torch.zeros(1, 1)).flatten(), [22.877417] * 3)


def test_images_are_doubled_by_the_filter() -> None:
    delta = torch.zeros(1, 1, 4, 4)
    delta[0, 0, 1, 1] = 1
    line = torch.tensor([0, 0.25, 0.75, 0.75, 0.25, 0, 0, 0])
    close(fir_resample(delta, up=True)[0, 0], (line[:, None] * line).tolist())
    ones = fir_resample(torch.ones(1, 1, 2, 2), up=True)[0, 0]
    rows = [[0.5625, 0.75, 0.75, 0.5625], [0.75, 1, 1, 0.75], [0.75, 1, 1, 0.75], [0.5625, 0.75, 0.75, 0.5625]]
    close(ones, rows)


def test_an_up_convolution_has_a_kernel_in_transposed_orientation() -> None:
    weight = torch.arange(1.0, 10).reshape(1, 1, 3, 3)

    def doubled(x: Tensor, weight: Tensor) -> Tensor:
        return blur(modulated_conv(x, weight, torch.ones(1, 1), demodulate=False, upsample=True), 1, 4)[0, 0]

    delta = torch.zeros(1, 1, 2, 2)
    delta[0, 0, 0, 0] = 1
    close(doubled(delta, weight), [
        [11.8125, 13.5625, 8.5625, 2.25], [17.0625, 18.8125, 11.5625, 3], [12.1875, 13.1875, 8, 2.0625],
        [3.375, 3.625, 2.1875, 0.5625]])  # fmt: skip
    close(doubled(delta, weight.flip(2, 3))[0], [18.8125, 17.0625, 8.9375, 2.125])
    ones = doubled(torch.ones(1, 1, 4, 4), weight)
    close(ones[2:6, 2:6], [[45.0] * 4] * 4)
    close(ones[[0, 0, -1, -1], [0, -1, 0, -1]], [14.0, 17.0, 23.0, 26.0])


@pytest.mark.parametrize(("group", "wanted"), [(4, math.sqrt(5)), (16, math.sqrt(5.25))])
def test_deviation_within_groups(group: int, wanted: float) -> None:
    values = torch.arange(8.0).reshape(8, 1, 1, 1)
    close(minibatch_deviation(values, group)[:, 1, 0, 0], [wanted] * 8)


def test_activations_are_clamped_after_their_gain() -> None:
    layer = StyledConv(1, 4, 1, w_dim=1, clamp=256)
    layer.bias.copy_(torch.tensor([-2000.0, -10, 150, 400]))
    close(layer(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1)).flatten(), [-256, -2.828427, 212.132034, 256])


@pytest.fixture
def tiny() -> Generator:
    """A network without random numbers: tensor j has the elements sin(0.7 i + j), where j = 0 are the latents."""
    generator = Generator(StyleGan2Config(channels=(3, 2), z_dim=4, w_dim=4, mapping_layers=2))
    layer = ("weight", "bias", "style.weight", "style.bias")
    names = ["mapping.0.weight", "mapping.0.bias", "mapping.1.weight", "mapping.1.bias", "w_avg", "const"]
    for place in ("b4.conv", "b4.rgb", "b8.up", "b8.conv", "b8.rgb"):
        names += [f"{place}.{name}" for name in (*layer, *(() if place.endswith("rgb") else ("noise",)))]
    state = generator.state_dict()
    for number, name in enumerate(names, start=1):
        values = waves(number, *state[name].shape)
        values = values * 100 if name.startswith("mapping") and name.endswith("weight") else values
        state[name] = values + 1 if name.endswith("style.bias") else values
    for name, tensor in state.items():
        if name.endswith("strength"):
            state[name] = torch.full_like(tensor, 0.5)
    assert len(names) == 29 and len(state) == 29 + 3
    generator.load_state_dict(state)
    return generator


def waves(number: int, *shape: int) -> Tensor:
    return torch.sin(0.7 * torch.arange(math.prod(shape), dtype=torch.float64) + number).float().reshape(shape)


@pytest.mark.parametrize(
    ("psi", "w", "wanted"),
    [
        (1.0, [-0.168033, 0.346052, 0.139771, -0.129351], [0.993366, 4.836953, -0.746301, 1.152884, 1.496235]),
        (0.7, [-0.405300, 0.077030, 0.132804, 0.128145], [0.999969, 5.417542, -0.788850, 1.157318, 1.597764]),
    ],
)
def test_a_tiny_network_computes_the_picture_of_two_programs(
    tiny: Generator, psi: float, w: list[float], wanted: list[float]
) -> None:
    styles = tiny.styles(tiny.map(waves(0, 1, 4)), psi)
    close(styles[0, 0], w)
    image = tiny.synthesise(styles)[0]
    found = [image[0, 0, 0], image[1, 3, 4], image[2, 7, 7], image.mean(), image.abs().mean()]
    torch.testing.assert_close(torch.stack(found), torch.tensor(wanted), atol=5e-6, rtol=0)


def test_a_tiny_network_without_noise(tiny: Generator) -> None:
    silent = [torch.zeros(1, 1, side, side) for side in tiny.config.noise_sides]
    image = tiny(waves(0, 1, 4), noise=silent)[0]
    found = torch.stack([image[0, 0, 0], image[1, 3, 4], image[2, 7, 7]])
    torch.testing.assert_close(found, torch.tensor([0.834910, 4.483174, -0.542611]), atol=5e-6, rtol=0)


SIZES = {  # parameters of a generator and a discriminator
    "256 half": (HALF, 8, 24_767_458, 24_001_089),
    "256 half, two mapping layers": (HALF, 2, 23_191_522, None),
    "64 full": (FULL[:5], 8, 27_032_600, None),
    "128 full": (FULL[:6], 8, 29_328_669, None),
    "256 full": (FULL[:7], 8, 30_034_338, 28_864_129),
    "512 full": (FULL[:8], 8, 30_276_583, None),
    "1024 full": (FULL, 8, 30_370_060, 29_012_513),
}


@pytest.mark.parametrize("name", SIZES)
def test_networks_have_the_published_numbers_of_parameters(name: str) -> None:
    channels, layers, generator, critic = SIZES[name]
    config = StyleGan2Config(channels=channels, mapping_layers=layers)
    with torch.device("meta"):
        networks = Generator(config), Discriminator(config)
    counts = [sum(p.numel() for p in network.parameters()) for network in networks]
    assert counts[0] == generator and critic in (None, counts[1])


@pytest.mark.parametrize(("pixels", "styles"), [(256, 14), (512, 16), (1024, 18)])
def test_styles_and_noises_are_counted_as_published(pixels: int, styles: int) -> None:
    level = pixels.bit_length() - 1
    config = StyleGan2Config(channels=FULL[: level - 1])
    assert (config.resolution, config.style_count, len(config.noise_sides)) == (pixels, styles, 2 * level - 3)
    assert config.noise_sides == tuple(2 ** ((number + 5) // 2) for number in range(2 * level - 3))
