import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zellige.engine.systems.onegan.config import OneGanConfig
from zellige.engine.systems.onegan.discriminators import BackgroundDiscriminator, ObjectDiscriminator

from .tiny_onegan import images, normal, one_thread, parameters, sides, tiny, trained

__all__ = ["one_thread"]

LADDERS = {128: ([62, 30, 27, 24, 24], 34, 4), 64: ([30, 27, 24, 24], 16, 2)}
resolutions = pytest.mark.parametrize("resolution", LADDERS)


@pytest.mark.parametrize(("build", "millions"), [(ObjectDiscriminator, 37.5), (BackgroundDiscriminator, 0.67)])
def test_parameters(build: type[nn.Module], millions: float) -> None:
    assert parameters(lambda: build(OneGanConfig())) / 1e6 == pytest.approx(millions, rel=0.005)


@torch.no_grad()
def test_outputs_have_the_published_shapes() -> None:
    with torch.device("meta"):
        whole, patches = ObjectDiscriminator(OneGanConfig()), BackgroundDiscriminator(OneGanConfig())
        x = torch.empty(2, 3, 128, 128)
    shapes = [[t.shape for t in (j.adversarial, j.auxiliary, j.features)] for j in (whole(x), patches(x))]
    assert shapes[0] == [(2, 1), (2, 200), (2, 512, 8, 8)]
    assert shapes[1] == [(2, 1, 24, 24), (2, 1, 24, 24), (2, 256, 27, 27)]
    assert whole.deep(whole.trunk(x)).shape == (2, 1024, 4, 4)


@pytest.mark.parametrize(("resolution", "trunk"), [(128, [64, 32, 16]), (64, [32, 16])])
@torch.no_grad()
def test_the_object_discriminator_shrinks_images_to_4(resolution: int, trunk: list[int]) -> None:
    network = trained(ObjectDiscriminator, tiny(resolution=resolution))
    passed = sides(network)
    network(images(tiny(resolution=resolution)))
    assert passed == [*trunk, 8, 4, 4]


@resolutions
@torch.no_grad()
def test_the_background_discriminators_sides(resolution: int) -> None:
    network = trained(BackgroundDiscriminator, tiny(resolution=resolution))
    passed = sides(network)
    network(images(tiny(resolution=resolution)))
    assert passed == LADDERS[resolution][0]


@resolutions
def test_no_stride_of_the_background_discriminator_leaves_a_rest(resolution: int) -> None:
    side = resolution - 2
    for layer in BackgroundDiscriminator(tiny(resolution=resolution)).modules():
        if isinstance(layer, nn.Conv2d) and layer.out_channels > 1:
            assert (side - 4) % layer.stride[0] == 0
            side = (side - 4) // layer.stride[0] + 1
    assert side == 27


@resolutions
def test_fields_of_the_background_discriminator_cover_the_picture_in_steps(resolution: int) -> None:
    _, field, step = LADDERS[resolution]
    network = trained(BackgroundDiscriminator, tiny(resolution=resolution))
    side = resolution - 2
    for cell in (0, 1, 23):
        x = normal(1, 3, side, side).requires_grad_()
        network.patches(x).adversarial[0, 0, cell, 23].backward()
        assert x.grad is not None
        seen = x.grad[0].abs().sum(0)
        assert seen.sum(1).nonzero().flatten().tolist() == list(range(step * cell, step * cell + field))
        assert seen.sum(0).nonzero().flatten().tolist() == list(range(side - field, side))


@torch.no_grad()
def test_real_and_generated_images_are_both_resized() -> None:
    network, x = trained(BackgroundDiscriminator), images(tiny())
    resized = F.interpolate(x, size=(62, 62), mode="bilinear")
    torch.testing.assert_close(network(x).adversarial, network.patches(resized).adversarial)


def test_leaky_relus_of_the_background_discriminator_have_a_fifth() -> None:
    slopes = [
        part.negative_slope for part in BackgroundDiscriminator(tiny()).modules() if isinstance(part, nn.LeakyReLU)
    ]
    assert slopes == [0.2, 0.2]


def test_the_background_discriminator_has_no_norm() -> None:
    assert {type(part) for part in BackgroundDiscriminator(tiny()).modules() if not list(part.children())} == {
        nn.Conv2d, nn.LeakyReLU
    }  # fmt: skip


@pytest.mark.parametrize("build", [ObjectDiscriminator, BackgroundDiscriminator])
def test_gradient_penalties_reach_the_weights(build: type[nn.Module]) -> None:
    network, x = trained(build), images(tiny()).requires_grad_()
    (slope,) = torch.autograd.grad(network(x).adversarial.sum(), x, create_graph=True)
    slope.square().sum().backward()
    weight = next(part for part in network.modules() if isinstance(part, nn.Conv2d)).weight
    assert weight.grad is not None and weight.grad.isfinite().all() and weight.grad.any()


@pytest.mark.parametrize("build", [ObjectDiscriminator, BackgroundDiscriminator])
def test_logits_are_float32_under_autocast(build: type[nn.Module]) -> None:
    network = trained(build)
    with torch.autocast("cpu", torch.bfloat16):
        judged = network(images(tiny()))
    assert judged.adversarial.dtype == judged.auxiliary.dtype == torch.float32
    # Measured over four seeds: at most 0.014.
    torch.testing.assert_close(judged.adversarial, network(images(tiny())).adversarial, rtol=0, atol=0.03)
