"""What a loss reaches before a trainer restricts it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zellige.engine.systems.onegan.networks import OneGanNetworks

from .tiny_onegan import drawn, images, one_thread, tiny, trained

__all__ = ["one_thread"]

VECTORS = ("child_vectors", "parent_vectors", "background_vectors")
ENCODERS = ("child_encoder", "parent_encoder", "background_encoder")


def touched(network: nn.Module, loss: Tensor) -> set[str]:
    """Names of the parameters, without weight and bias, that a loss has a gradient for."""
    network.zero_grad()
    loss.backward()
    return {
        name.rpartition(".")[0]
        for name, parameter in network.named_parameters()
        if parameter.grad is not None and parameter.grad.any()
    }


def everything(network: nn.Module, *without: str) -> set[str]:
    names = {name.rpartition(".")[0] for name, _ in network.named_parameters()}
    return {name for name in names if not name.startswith(without)}


def test_the_norm_of_the_vectors_reaches_the_tables_alone() -> None:
    codes = drawn(network := trained(OneGanNetworks))
    loss = sum(t.square().sum(1).mean() for t in (codes.child, codes.parent, codes.background))
    assert isinstance(loss, Tensor) and touched(network, loss) == set(VECTORS)


def test_the_mask_reaches_the_foreground_and_its_tables_alone() -> None:
    composite = (network := trained(OneGanNetworks)).generate(drawn(network))
    without = ("background", "child_encoder", "parent_encoder", "foreground.to_image")
    assert touched(network, (composite.mask.mean() - 0.25).abs()) == everything(network, *without)


def test_a_generated_image_reaches_generators_and_tables() -> None:
    composite = (network := trained(OneGanNetworks)).generate(drawn(network))
    assert touched(network, composite.image.square().mean()) == everything(network, *ENCODERS)


@pytest.mark.parametrize(
    ("source", "without"),
    [
        ("vectors", ("child_vectors", "parent_vectors", "child_encoder.classes")),
        ("classes", ("child_encoder.vector", "parent_encoder.vector")),
    ],
)
def test_a_reconstruction_reaches_all_that_it_is_made_from(source: Any, without: tuple[str, ...]) -> None:
    network = trained(OneGanNetworks, tiny(reconstruction_codes=source))
    composite = network.reconstruct(images(tiny()), beta=torch.tensor([0.3, 0.6]), sample=True)
    assert touched(network, composite.image.square().mean()) == everything(network, *without)


def test_autoencoding_reaches_no_pose_and_no_pre_image_of_a_generator() -> None:
    network = trained(OneGanNetworks)
    found = touched(network, network.reconstruct(images(tiny())).image.square().mean())
    assert not any("pre_image" in name or "latent" in name for name in found)
    assert {"parent_encoder.bypass.0.conv", "background_encoder.bypass.0.conv"} <= found
