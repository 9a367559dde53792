import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zellige.engine.systems.onegan.config import OneGanConfig
from zellige.engine.systems.onegan.encoders import (
    BackgroundEncoder,
    ChildEncoder,
    Gaussian,
    GaussianHead,
    ParentEncoder,
)

from .tiny_onegan import images, normal, one_thread, parameters, sides, tiny, trained

__all__ = ["one_thread"]

resolutions = pytest.mark.parametrize("resolution", [64, 128])
TRUNK = {64: [32, 16], 128: [64, 32, 16]}


@pytest.mark.parametrize(("build", "millions"), [(ChildEncoder, 29.1), (ParentEncoder, 39.9), (BackgroundEncoder, 3.0)])
def test_parameters(build: type[nn.Module], millions: float) -> None:
    assert parameters(lambda: build(OneGanConfig())) / 1e6 == pytest.approx(millions, abs=0.05)


@torch.no_grad()
def test_outputs_have_the_published_shapes() -> None:
    with torch.device("meta"):
        child, parent, background = (b(OneGanConfig()) for b in (ChildEncoder, ParentEncoder, BackgroundEncoder))
        x, mask = torch.empty(2, 3, 128, 128), torch.empty(2, 1, 128, 128)
    logits, vector = child(x)
    assert (logits.shape, vector.mean.shape, vector.log_variance.shape) == ((2, 200), (2, 32), (2, 32))
    logits, vector, latent, bypass = parent(x)
    assert (logits.shape, vector.mean.shape, latent.mean.shape) == ((2, 20), (2, 16), (2, 100))
    assert bypass.shape == background(x, mask).shape == (2, 256, 16, 16)
    assert child.deep(child.trunk(x)).shape == (2, 1024, 4, 4)


@resolutions
@torch.no_grad()
def test_images_shrink_to_4_and_bypasses_leave_at_16(resolution: int) -> None:
    config = tiny(resolution=resolution)
    x, mask = images(config), images(config)[:, :1]
    child, parent, background = (trained(b, config) for b in (ChildEncoder, ParentEncoder, BackgroundEncoder))
    passed = [sides(network) for network in (child, parent, background)]
    child(x), parent(x), background(x, mask)
    trunk = TRUNK[resolution]
    assert passed == [[*trunk, 8, 4, 4], [*trunk, 8, 4, 4, 16, 16], [*trunk, 16, 16]]


@torch.no_grad()
def test_the_bottleneck_goes_through_8() -> None:
    config = tiny(bypass="bottleneck")
    network = trained(BackgroundEncoder, config)
    passed = sides(network)
    assert network(images(config), images(config)[:, :1]).shape == (2, 16, 16, 16)
    assert passed == [32, 16, 8, 16]


@torch.no_grad()
def test_a_raw_background_input_shows_the_object_and_a_masked_one_does_not() -> None:
    config, mask = tiny(), torch.zeros(2, 1, 64, 64)
    mask[:, :, 20:40, 20:40] = 1
    x = images(config)
    other = torch.where(mask.bool(), -x, x)  # another object in the same place
    raw = trained(BackgroundEncoder, config)
    assert not torch.equal(raw(x, mask), raw(other, mask))
    masked = trained(BackgroundEncoder, tiny(background_input="masked"))
    assert torch.equal(masked(x, mask), masked(other, mask))


def test_the_background_encoder_has_no_heads() -> None:
    assert not any(isinstance(part, nn.Linear) for part in BackgroundEncoder(tiny()).modules())


@pytest.mark.parametrize("sigma", ["log_variance", "softplus"])
def test_sigma_heads_are_read_as_configured(sigma: str) -> None:
    head = trained(lambda config: GaussianHead(config, 4, 3), tiny(sigma=sigma))
    x = normal(5, 4)
    raw = head.sigma(x)
    expected = (raw / 2).exp() if sigma == "log_variance" else F.softplus(raw)
    torch.testing.assert_close(head(x).deviation, expected)
    torch.testing.assert_close(head(x).mean, head.mean(x))


def test_samples_have_the_mean_and_the_deviation() -> None:
    mean, log_variance = torch.tensor([[1.0, -3.0]]), torch.tensor([[0.5, -1.0]])
    distribution = Gaussian(mean.expand(20000, 2), log_variance.expand(20000, 2))
    samples = distribution.sample(torch.Generator().manual_seed(0))
    torch.testing.assert_close(samples.mean(0), mean[0], rtol=0, atol=0.05)
    torch.testing.assert_close(samples.std(0), (log_variance[0] / 2).exp(), rtol=0.05, atol=0)


def test_samples_repeat_under_a_seed_and_carry_gradients() -> None:
    mean, log_variance = torch.zeros(3, 2, requires_grad=True), torch.zeros(3, 2, requires_grad=True)
    first, second = (Gaussian(mean, log_variance).sample(torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, second)
    first.sum().backward()
    assert mean.grad is not None and log_variance.grad is not None
    torch.testing.assert_close(log_variance.grad, first.detach() / 2)
