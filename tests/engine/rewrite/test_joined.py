"""A transposed convolution of joined maps is the convolution of the joined map, in all of its forms."""

import pytest
import torch
from torch import Tensor, nn

from zellige.engine.layers.convolutions import JoinedConvTranspose2d
from zellige.engine.rewrite.fold_norm import fold_norms
from zellige.engine.rewrite.forms import forms
from zellige.engine.rewrite.up_conv import JoinedPhaseUpConv, transposed_phases
from zellige.engine.rewrite.winograd import JoinedWinogradConv, strided_winograd

from .judge import SIDES, assert_exact, layer, random


def joined(*parts: int, outputs: int = 16, bias: bool = True) -> nn.Module:
    return layer(JoinedConvTranspose2d, parts, outputs, 4, 2, 1, bias=bias)


def maps(*parts: int, sides: tuple[int, int] = (5, 8), dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [random(2, channels, *sides, seed=k, dtype=dtype) for k, channels in enumerate(parts)]


def call(conv: nn.Module, *given: Tensor) -> Tensor:
    return conv(*given)


@pytest.mark.parametrize("parts", [(3,), (4, 5), (16, 32, 7)])
def test_it_is_the_convolution_of_the_joined_map(parts: tuple[int, ...]) -> None:
    conv, given = joined(*parts).double(), maps(*parts)
    plain = layer(nn.ConvTranspose2d, sum(parts), 16, 4, 2, 1).double()
    plain.load_state_dict(conv.state_dict())
    assert torch.equal(conv(*given), plain(torch.cat(given, 1)))


@pytest.mark.parametrize("parts", [(3,), (4, 5), (16, 32, 7)])
@pytest.mark.parametrize("bias", [True, False])
def test_phases_are_convolved_map_by_map(parts: tuple[int, ...], bias: bool) -> None:
    assert isinstance(transposed_phases(joined(*parts)), JoinedPhaseUpConv)  # type: ignore[arg-type]
    for sides in SIDES:
        assert_exact(transposed_phases, joined(*parts, outputs=3, bias=bias), call, *maps(*parts, sides=sides))  # type: ignore[arg-type]


@pytest.mark.parametrize("parts", [(3,), (4, 5), (16, 32, 7)])
@pytest.mark.parametrize("cells", [1, 2, 3])
def test_winograd_reads_maps_where_they_lie(parts: tuple[int, ...], cells: int) -> None:
    def rewrite(conv: nn.Module) -> nn.Module:
        return strided_winograd(conv, cells)  # type: ignore[arg-type]

    assert isinstance(rewrite(joined(*parts)), JoinedWinogradConv)
    assert_exact(rewrite, joined(*parts), call, *maps(*parts))


def test_a_norm_behind_it_is_folded() -> None:
    step = nn.Sequential(joined(4, 5), layer(nn.BatchNorm2d, 16)).eval()
    with torch.no_grad():
        nn.init.uniform_(step[1].running_var, 0.5, 2)
        given = maps(4, 5, dtype=torch.float32)
        expected = step[1](step[0](*given))
        fold_norms(step)
        assert len(step) == 1 and type(step[0]) is JoinedConvTranspose2d
        torch.testing.assert_close(step[0](*given), expected)


def test_it_has_the_forms_of_the_convolution() -> None:
    plain = layer(nn.ConvTranspose2d, 9, 16, 4, 2, 1)
    assert list(forms(joined(4, 5))) == list(forms(plain))
    other = layer(JoinedConvTranspose2d, (4, 5), 16, 5, 2, 2, 1)
    assert not forms(other)
