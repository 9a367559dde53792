import pytest
import torch
from torch import nn

from zellige.engine.systems.onegan.config import OneGanConfig
from zellige.engine.systems.onegan.generators import BackgroundGenerator, ForegroundGenerator

from .tiny_onegan import normal, one_thread, parameters, sides, tiny, trained

__all__ = ["one_thread"]

resolutions = pytest.mark.parametrize("resolution", [64, 128])
LADDER = {64: [32, 64], 128: [32, 64, 128]}


def published() -> tuple[BackgroundGenerator, ForegroundGenerator]:
    with torch.device("meta"):
        return BackgroundGenerator(OneGanConfig()), ForegroundGenerator(OneGanConfig())


def test_parameters_of_the_background_generator() -> None:
    assert parameters(lambda: published()[0]) / 1e6 == pytest.approx(16.9, abs=0.05)


def test_parameters_of_the_foreground_generators_parts() -> None:
    _, generator = published()
    style = nn.ModuleList([generator.parent, generator.child, generator.to_image, generator.to_mask])
    counts = [parameters(lambda part=part: part) / 1e6 for part in (generator.pre_image, generator.blocks, style)]
    assert counts == pytest.approx([15.6, 0.8, 0.5], abs=0.05)


def test_scales_and_shifts_of_every_element_take_17_million_in_the_foreground() -> None:
    with torch.device("meta"):
        generator = ForegroundGenerator(OneGanConfig(norm_affine="element"))
    style = nn.ModuleList([generator.parent, generator.child, generator.to_image, generator.to_mask])
    assert parameters(lambda: style) / 1e6 == pytest.approx(17.8, abs=0.05)


@torch.no_grad()
def test_maps_have_the_published_shapes() -> None:
    background, foreground = published()
    latent, vector, code = (torch.empty(2, n, device="meta") for n in (100, 32, 16))
    pre_image = background.pre_image(vector, latent)
    assert pre_image.shape == foreground.pre_image(code, latent).shape == (2, 256, 16, 16)
    assert background.blocks(pre_image).shape == (2, 32, 128, 128)
    assert background(pre_image).shape == (2, 3, 128, 128)
    assert foreground.blocks(pre_image).shape == (2, 64, 128, 128)
    features = foreground.shape(pre_image, code)
    assert features.shape == (2, 32, 128, 128)
    assert foreground.child(features, vector).shape == (2, 16, 128, 128)
    assert [part.shape for part in foreground.style(features, vector)] == [(2, 3, 128, 128), (2, 1, 128, 128)]


@resolutions
@torch.no_grad()
def test_the_background_climbs_from_4_to_the_image(resolution: int) -> None:
    config = tiny(resolution=resolution)
    generator = trained(BackgroundGenerator, config)
    climbed = sides(generator)
    pre_image = generator.pre_image(normal(2, config.background_vector), normal(2, config.latent))
    assert pre_image.shape == (2, 16 * config.width, 16, 16)
    assert generator(pre_image).shape == (2, 3, resolution, resolution)
    assert climbed == [8, 16, *LADDER[resolution], resolution]


@resolutions
@torch.no_grad()
def test_the_foreground_climbs_from_4_to_image_and_mask(resolution: int) -> None:
    config = tiny(resolution=resolution)
    generator = trained(ForegroundGenerator, config)
    climbed = sides(generator)
    code, vector = normal(2, config.parent_vector), normal(2, config.child_vector)
    foreground, mask = generator(generator.pre_image(code, normal(2, config.latent)), code, vector)
    assert (foreground.shape, mask.shape) == ((2, 3, resolution, resolution), (2, 1, resolution, resolution))
    assert climbed == [8, 16, *LADDER[resolution], *[resolution] * 14]


@torch.no_grad()
def test_the_childs_vector_enters_behind_the_shape() -> None:
    config = tiny()
    generator = trained(ForegroundGenerator, config)
    pre_image, code = normal(2, 16, 16, 16), normal(2, config.parent_vector)
    whole = generator(pre_image, code, normal(2, config.child_vector))
    parts = generator.style(generator.shape(pre_image, code), normal(2, config.child_vector))
    assert all(map(torch.equal, whole, parts))


@torch.no_grad()
def test_maps_lie_by_pixel_throughout() -> None:
    generator = trained(ForegroundGenerator)
    config, orders = tiny(), []
    for part in generator.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(
                lambda _, arguments, __: orders.append(arguments[0].is_contiguous(memory_format=torch.channels_last))
            )
    code = normal(2, config.parent_vector)
    generator(generator.pre_image(code, normal(2, config.latent)), code, normal(2, config.child_vector))
    assert all(orders)
