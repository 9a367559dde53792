"""The layers of inference compute what the trained ones do, in all their forms, with the same bits in any batch."""

import copy

import pytest
import torch
from torch import Tensor

from zellige.engine.layers.batch_invariance import make_batch_invariant
from zellige.engine.layers.modulated import ScaledConv, StyledConv, ToRgb
from zellige.engine.layers.precision import cast_maps
from zellige.engine.rewrite.forms import forms
from zellige.kernels import plain_operators

each_side = pytest.mark.parametrize("up", [False, True], ids=["same", "up"])
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


def layer(up: bool, inputs: int = 20, outputs: int = 40, side: int = 6, clamp: float | None = 1.5) -> StyledConv:
    torch.manual_seed(0)
    made = StyledConv(inputs, outputs, 2 * side if up else side, 8, up=up, clamp=clamp).eval()
    with torch.no_grad():
        made.bias.normal_()
        made.noise_strength.fill_(0.5)
    return made.requires_grad_(False)


def given(count: int, inputs: int = 20, side: int = 6, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    x = torch.randn(count, inputs, side, side, generator=random).to(dtype).to(memory_format=torch.channels_last)
    return x, torch.randn(count, 8, generator=random)


def in_each_form(scaled: ScaledConv) -> dict[str, ScaledConv]:
    found = {"as trained": scaled}
    for name, build in forms(scaled.conv).items():
        found[name] = copy.deepcopy(scaled)
        found[name].conv = build()
    return found


@each_side
@pytest.mark.parametrize("noise", ["stored", "shared", "own"])
def test_every_form_equals_the_trained_layer(up: bool, noise: str) -> None:
    trained, (x, w) = layer(up), given(3)
    side = len(trained.noise)
    other = None if noise == "stored" else torch.randn(1 if noise == "shared" else 3, 1, side, side)
    expected = trained(x, w, other)
    assert (expected.abs() == 1.5).any()
    for form in in_each_form(trained.scaled()).values():
        torch.testing.assert_close(form(x, w, other), expected, rtol=1e-5, atol=1e-5)
        with plain_operators():
            torch.testing.assert_close(trained.scaled()(x, w, other), expected, rtol=1e-5, atol=1e-5)


@each_side
def test_bfloat16_is_as_near_as_its_rounding(up: bool) -> None:
    trained, (x, w) = layer(up, clamp=None), given(3, dtype=torch.bfloat16)
    exact = trained(x.float(), w)
    for form in in_each_form(cast_maps(trained.scaled(), torch.bfloat16)).values():
        y = form(x, w)
        assert y.dtype == torch.bfloat16
        assert (y - exact).abs().max() <= 2**-6 * exact.abs().max()


@each_side
@each_dtype
@pytest.mark.parametrize(("inputs", "side"), [(20, 6), (48, 16), (512, 4)])
def test_an_image_has_the_same_bits_in_any_batch(up: bool, dtype: torch.dtype, inputs: int, side: int) -> None:
    x, w = given(9, inputs, side, dtype)
    for form in in_each_form(cast_maps(layer(up, inputs, side=side).scaled(), dtype)).values():
        make_batch_invariant(form)
        whole = form(x, w)
        for count in (1, 2, 5):
            parts = [form(*pair) for pair in zip(x.split(count), w.split(count), strict=True)]
            assert torch.equal(torch.cat(parts), whole)


@each_dtype
def test_colours_have_the_same_bits_in_any_batch(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    scaled = ToRgb(64, 8).eval().requires_grad_(False).scaled()
    make_batch_invariant(scaled)
    x, w = given(9, 64, 16, dtype)
    whole = scaled(x, w)
    assert torch.equal(torch.cat([scaled(*pair) for pair in zip(x.split(1), w.split(1), strict=True)]), whole)


@each_side
def test_nan_stays_in_its_sample(up: bool) -> None:
    x, w = given(3)
    x[1, 2, 3, 3] = torch.nan
    for form in in_each_form(layer(up).scaled()).values():
        assert form(x, w).isnan().flatten(1).any(1).tolist() == [False, True, False]
