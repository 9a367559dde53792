"""The parts of a linear layer, of latents and of coordinates, add up to the whole for every pair of them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.export import Dim
from torch.nn.utils.parametrizations import spectral_norm

from zellige.engine.layers.batch_invariance import BatchInvariantLinear
from zellige.engine.rewrite.split_linear import split_linear
from zellige.errors import ShapeError

from .judge import assert_exact, layer, random


def assert_equal(linear: nn.Module, latents: Tensor, coordinates: Tensor, first: bool = True) -> None:
    def joined(linear: nn.Module, latents: Tensor, coordinates: Tensor) -> Tensor:
        rows = [
            linear(torch.cat([z, c] if first else [c, z])[None])[0]
            for z in latents.unbind()
            for c in coordinates.unbind()
        ]
        return torch.stack(rows).unflatten(0, (len(latents), len(coordinates)))

    assert_exact(
        lambda linear: split_linear(linear, latents.shape[1], first=first), linear, joined, latents, coordinates
    )


@given(
    st.integers(1, 4), st.integers(1, 5), st.integers(1, 9), st.integers(1, 5), st.integers(1, 9), st.booleans(),
    st.booleans(), st.integers(0, 99),
)  # fmt: skip
def test_equals_the_layer_of_every_pair(
    n: int, p: int, latent: int, m: int, k: int, first: bool, bias: bool, seed: int
) -> None:
    linear = layer(nn.Linear, latent + m, k, bias=bias, seed=seed)
    assert_equal(linear, random(n, latent, seed=seed), random(p, m, seed=seed + 1), first)


def test_spectral_norm_is_folded_in() -> None:
    assert_equal(spectral_norm(layer(nn.Linear, 9, 5)).eval(), random(2, 6), random(4, 3))


def test_parts_have_the_same_bits_in_any_batch_where_the_layer_has() -> None:
    linear = layer(BatchInvariantLinear, 9, 20)
    assert_equal(linear, random(3, 6), random(4, 3))
    module = split_linear(linear, 6)
    latents, coordinates = random(5, 6, dtype=torch.float32), random(37, 3, dtype=torch.float32)
    whole = module(latents, coordinates)
    assert torch.equal(torch.cat([module(z, coordinates) for z in latents.split(1)]), whole)
    assert torch.equal(torch.cat([module(latents, c) for c in coordinates.split(1)], dim=1), whole)


def test_parts_can_be_kept() -> None:
    module = split_linear(layer(nn.Linear, 9, 5), 6)
    latents, coordinates = random(2, 6, dtype=torch.float32), random(4, 3, dtype=torch.float32)
    image, position = module.image(latents), module.position(coordinates)
    assert image.shape == (2, 5) and position.shape == (4, 5)
    assert torch.equal(image[:, None] + position, module(latents, coordinates))


@pytest.mark.parametrize(("n", "p"), [(0, 3), (2, 0)])
def test_empty_batches(n: int, p: int) -> None:
    assert split_linear(layer(nn.Linear, 9, 5), 6)(torch.empty(n, 6), torch.empty(p, 3)).shape == (n, p, 5)


def test_can_be_exported_for_any_batch_and_compiled() -> None:
    module = split_linear(layer(nn.Linear, 9, 5), 6)
    inputs = random(2, 6, dtype=torch.float32), random(4, 3, dtype=torch.float32)
    others = random(5, 6, dtype=torch.float32), random(3, 3, dtype=torch.float32)
    program = torch.export.export(module, inputs, dynamic_shapes=({0: Dim("n")}, {0: Dim("p")}))
    torch.testing.assert_close(program.module()(*others), module(*others))
    torch.testing.assert_close(torch.compile(module, fullgraph=True, backend="aot_eager")(*inputs), module(*inputs))


@pytest.mark.parametrize(
    ("linear", "latent", "sentence"),
    [
        (nn.Linear(9, 5), 9, "9 of 9 inputs are the latent's; it must be 1 to 8."),
        (nn.Linear(9, 5), 0, "0 of 9 inputs are the latent's; it must be 1 to 8."),
        (nn.Conv2d(9, 5, 1), 6, "The layer is Conv2d; it must be nn.Linear, without a forward of its own."),
    ],
)
def test_refuses_other_layers(linear: nn.Linear, latent: int, sentence: str) -> None:
    with pytest.raises(ShapeError) as error:
        split_linear(linear, latent)
    assert str(error.value) == sentence
