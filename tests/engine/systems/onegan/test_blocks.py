import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zellige.engine.layers.norms import GluLayerNorm, MapNorm
from zellige.engine.systems.onegan.blocks import CodedBlock, GluConv, NormedConv, VectorTable, initialise, norm_settings

from .tiny_onegan import normal, one_thread, tiny, trained

__all__ = ["one_thread"]

NORMS = [{}, {"norm_affine": "element"}, {"norm_axes": "pixel"}]
norms = pytest.mark.parametrize("chosen", NORMS, ids=["default", "element", "pixel"])


def formula(x: Tensor, norm: MapNorm, chosen: dict[str, str]) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias, in float64."""
    x, weight, bias = (t.detach().double() for t in (x, norm.weight, norm.bias))
    axes = (1,) if "norm_axes" in chosen else (1, 2, 3)
    if weight.dim() == 1:
        weight, bias = weight[:, None, None], bias[:, None, None]
    mean, var = x.mean(axes, keepdim=True), x.var(axes, correction=0, keepdim=True)
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


@norms
def test_a_map_is_normalised_by_the_formula(chosen: dict[str, str]) -> None:
    norm = trained(lambda config: MapNorm(5, 6, **norm_settings(config)), tiny(**chosen))
    x = 3 * normal(3, 5, 6, 6) + 1
    torch.testing.assert_close(norm(x).double(), formula(x, norm, chosen), rtol=1e-5, atol=1e-5)


@norms
def test_only_the_first_half_is_normalised_and_the_second_gates(chosen: dict[str, str]) -> None:
    norm = trained(lambda config: GluLayerNorm(5, 6, **norm_settings(config)), tiny(**chosen))
    x = 3 * normal(3, 10, 6, 6) + 1
    expected = formula(x[:, :5], norm, chosen) * x[:, 5:].double().sigmoid()
    torch.testing.assert_close(norm(x).double(), expected, rtol=1e-5, atol=1e-5)


@norms
def test_norms_keep_the_memory_order_by_pixel(chosen: dict[str, str]) -> None:
    x = normal(2, 6, 4, 4).contiguous(memory_format=torch.channels_last)
    settings = norm_settings(tiny(**chosen))
    for norm, y in ((MapNorm(6, 4, **settings), x), (GluLayerNorm(3, 4, **settings), x)):
        assert norm(y).is_contiguous(memory_format=torch.channels_last)


@norms
def test_factors_start_as_the_identity(chosen: dict[str, str]) -> None:
    norm = MapNorm(3, 4, **norm_settings(tiny(**chosen)))
    assert (norm.weight == 1).all() and not norm.bias.any()
    assert norm.weight.shape == ((3, 4, 4) if "norm_affine" in chosen else (3,))


def test_an_up_block_repeats_pixels_before_it_convolves() -> None:
    block = trained(lambda config: GluConv(config, 2, 3, 8, "up"))
    x = normal(2, 2, 4, 4)
    repeated = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(block(x), block.norm(F.conv2d(repeated, block.conv.weight, padding=1)))


def test_an_up_block_may_interpolate() -> None:
    block = trained(lambda config: GluConv(config, 2, 3, 8, "up"), tiny(upsampling="bilinear"))
    x = normal(2, 2, 4, 4)
    between = F.interpolate(x, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(block(x), block.norm(F.conv2d(between, block.conv.weight, padding=1)))


def test_an_up_block_stays_in_bfloat16_under_autocast() -> None:
    block = trained(lambda config: GluConv(config, 2, 3, 8, "up"))
    with torch.autocast("cpu", torch.bfloat16):
        assert block(normal(2, 2, 4, 4).bfloat16()).dtype == torch.bfloat16


def test_a_down_block_halves_with_a_leaky_relu_of_a_fifth() -> None:
    block = trained(lambda config: NormedConv(config, 2, 3, 4))
    y, normed = block(normal(2, 2, 8, 8)), block.norm(F.conv2d(normal(2, 2, 8, 8), block.conv.weight, None, 2, 1))
    torch.testing.assert_close(y, torch.where(normed > 0, normed, 0.2 * normed))


def test_a_code_joins_every_pixel_in_front_of_the_features() -> None:
    block = trained(lambda config: CodedBlock(config, 4, 3, 2, 8))
    x, code = normal(2, 4, 8, 8), normal(2, 3, seed=1)
    together = torch.cat([code[:, :, None, None].expand(2, 3, 8, 8), x], dim=1)
    joined = block.join.norm(F.conv2d(together, block.join.conv.weight, padding=1))
    assert block.join.conv.weight.shape == (8, 7, 3, 3)
    for residual in block.blocks:
        joined = joined + residual.blocks[1](residual.blocks[0](joined))
    torch.testing.assert_close(block(x, code), block.last(joined))


@pytest.mark.parametrize("bias", [False, True])
def test_a_class_a_one_hot_code_and_a_certain_probability_have_the_same_vector(bias: bool) -> None:
    table = trained(lambda _: VectorTable(7, 4, bias=bias))
    classes = torch.tensor([0, 6, 3, 3])
    torch.testing.assert_close(table(classes), table(F.one_hot(classes, 7).float()), rtol=0, atol=0)


def test_class_probabilities_have_the_mean_of_the_vectors() -> None:
    table = trained(lambda _: VectorTable(7, 4, bias=False))
    probabilities = normal(3, 7).softmax(dim=1)
    vectors = table(torch.arange(7))
    expected = torch.stack([(p[:, None] * vectors).sum(0) for p in probabilities])
    torch.testing.assert_close(table(probabilities), expected)


def test_vectors_stay_in_float32_under_autocast() -> None:
    table = VectorTable(7, 4, bias=False)
    with torch.autocast("cpu", torch.bfloat16):
        assert table(torch.arange(7)).dtype == table(normal(2, 7)).dtype == torch.float32


def test_weights_start_orthogonal_of_gain_1_and_biases_at_zero() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(4, 9), nn.Linear(9, 4))
    initialise(network)
    for layer in network:
        matrix = layer.weight.flatten(1)
        square = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
        torch.testing.assert_close(square, torch.eye(len(square)), rtol=0, atol=1e-5)
        assert not layer.bias.any()
