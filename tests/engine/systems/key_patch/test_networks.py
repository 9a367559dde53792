"""The networks have the paper's shapes, channels and numbers of weights, and sum over patches."""

import pytest
import torch
from torch import nn

from zellige.engine.systems.key_patch.config import KeyPatchConfig
from zellige.engine.systems.key_patch.networks import Discriminator, KeyPatchNetworks

from .tiny_key_patch import config, networks

# Weights of convolutions alone: encoder, discriminator, mask decoder, image decoder.
WEIGHTS = {
    64: (4_852_736, 2_763_776, 7_604_224, 10_363_904),
    128: (9_047_040, 6_958_080, 15_992_832, 22_946_816),
    256: (13_241_344, 11_152_384, 24_381_440, 35_529_728),
}
IMAGE_INPUTS = {
    64: (1536, 768, 384, 192),
    128: (1536, 1536, 768, 384, 192),
    256: (1536, 1536, 1536, 768, 384, 192),
}
every_resolution = pytest.mark.parametrize("resolution", WEIGHTS)


def built(resolution: int) -> tuple[KeyPatchNetworks, Discriminator]:
    with torch.device("meta"):
        chosen = KeyPatchConfig(resolution=resolution)
        return KeyPatchNetworks(chosen), Discriminator(chosen)


@every_resolution
def test_weights_are_the_papers(resolution: int) -> None:
    made, critic = built(resolution)
    counted = [sum(p.numel() for p in net.parameters() if p.dim() > 1)
               for net in (made.encoder, critic, made.mask, made.image)]  # fmt: skip
    assert tuple(counted) == WEIGHTS[resolution]


@every_resolution
def test_the_image_decoder_reads_its_own_map_and_the_joined_one(resolution: int) -> None:
    made, _ = built(resolution)
    assert made.mask is not None
    image = [step[0].in_channels for step in made.image.steps]
    assert tuple(image) == IMAGE_INPUTS[resolution]
    assert [step[0].in_channels for step in made.mask.steps] == [n * 2 // 3 for n in image]


@every_resolution
@pytest.mark.parametrize("count", [1, 5])
def test_any_number_of_patches_has_the_same_weights_and_results(resolution: int, count: int) -> None:
    with torch.device("meta"):
        made = KeyPatchNetworks(KeyPatchConfig(resolution=resolution))(torch.empty(2, count, 3, resolution, resolution))
    assert made.image.shape == (2, 3, resolution, resolution) and made.mask.shape == (2, 1, resolution, resolution)


def test_only_convolutions_without_a_norm_have_a_bias() -> None:
    made, critic = built(256)
    for block in (m for net in (made, critic) for m in net.modules() if isinstance(m, nn.Sequential)):
        convs = [m for m in block if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
        if convs:
            assert (convs[0].bias is None) == any(isinstance(m, nn.BatchNorm2d) for m in block)


@pytest.mark.parametrize("kernel", [4, 5])
def test_both_kernels_halve_and_double(kernel: int) -> None:
    made = networks(kernel=kernel)(torch.zeros(1, 2, 3, 64, 64))
    assert made.image.shape == (1, 3, 64, 64)


def test_the_order_of_patches_changes_nothing() -> None:
    net, patches = networks(), torch.randn(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    one, other = net(patches), net(patches[:, [2, 0, 1]])
    torch.testing.assert_close(one.image, other.image)
    torch.testing.assert_close(one.mask, other.mask)


def test_a_patch_twice_is_added_twice() -> None:
    net, patches = networks(), torch.randn(1, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    first, second = (net.encode(patches[:, k : k + 1]) for k in (0, 1))
    twice = net.encode(patches[:, [0, 1, 1]])
    torch.testing.assert_close(twice.encoding, first.encoding + 2 * second.encoding)
    for (whole,), (a,), (b,) in zip(twice.maps, first.maps, second.maps, strict=True):
        torch.testing.assert_close(whole, a + 2 * b)


def test_counts_are_repetitions() -> None:
    net, patches = networks(), torch.randn(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    counted = net(patches, torch.tensor([[1.0, 2.0, 0.0]]).expand(2, -1))
    torch.testing.assert_close(counted.image, net(patches[:, [0, 1, 1]]).image)


def test_z_changes_the_image_and_not_the_mask() -> None:
    net, patches = networks(z_dim=5), torch.randn(1, 3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    one, other = (net(patches, z=torch.full((1, 5), value)) for value in (-1.0, 1.0))
    assert torch.equal(one.mask, other.mask) and not torch.allclose(one.image, other.image)


@pytest.mark.parametrize(("wiring", "shares"), [("encoder", 2), ("encoding", 1)])
def test_baselines_have_no_mask_and_fewer_inputs(wiring: str, shares: int) -> None:
    net = networks(wiring=wiring)
    assert net(torch.zeros(1, 2, 3, 64, 64)).mask is None
    assert [step[0].in_channels for step in net.image.steps] == [shares * n for n in (32, 16, 8, 4)]


@pytest.mark.parametrize(
    "wrong", [{"resolution": 96}, {"kernel": 3}, {"least_side": 0.5}, {"most_area": 0.04}, {"patches": 0}]
)
def test_what_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="."):
        config(**wrong)


@pytest.mark.parametrize("wiring", ["mask", "encoder"])
def test_joined_heads_compute_the_same(wiring: str) -> None:
    net, patches = networks(wiring=wiring), torch.randn(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = net(patches)
    for _ in range(2):  # a second time changes nothing
        net.join_layers()
    found = net(patches)
    assert (net.heads is not None) == (wiring == "mask")
    torch.testing.assert_close(found.image, expected.image)
    torch.testing.assert_close(found.mask, expected.mask)
