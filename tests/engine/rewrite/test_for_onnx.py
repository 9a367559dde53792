import copy

import pytest
import torch
from torch import nn

from zellige.engine.layers.convolutions import CodedConv, JoinedConvTranspose2d, Padding, UpConv
from zellige.engine.rewrite import ConstantChannelsConv, TransposedUpConv
from zellige.engine.rewrite.for_onnx import rewrite_for_graphs
from zellige.engine.rewrite.up_conv import PhaseUpConv
from zellige.engine.rewrite.whole_map import WholeMap

X = torch.randn(2, 128, 5, 7, generator=torch.Generator().manual_seed(0)).double()


class Both(nn.Module):
    def __init__(self, padding: Padding) -> None:
        super().__init__()
        self.up, self.coded = UpConv(128, 6, padding), CodedConv(4, 6, 3)

    def forward(self, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.coded(self.up(x), code)
        return y


@pytest.mark.parametrize("padding", ["zeros", "replicate", "none"])
def test_a_network_for_graphs_computes_the_same(padding: Padding) -> None:
    torch.manual_seed(0)
    network = Both(padding).double().eval().requires_grad_(False)
    changed = copy.deepcopy(network)
    rewrite_for_graphs(changed)
    assert isinstance(changed.up, TransposedUpConv) and isinstance(changed.coded, ConstantChannelsConv)
    code = torch.randn(2, 4).double()
    torch.testing.assert_close(changed(X, code), network(X, code), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "layer",
    [
        UpConv(127, 6, "zeros"),
        UpConv(128, 6, "zeros", mode="bilinear"),
        UpConv(128, 6, "none", spare=1),
        UpConv(128, 6, "zeros").bfloat16(),
    ],
    ids=["narrow", "bilinear", "cut", "bfloat16"],
)
def test_layers_that_gain_nothing_or_have_no_form_stay(layer: UpConv) -> None:
    network = nn.Sequential(layer)
    rewrite_for_graphs(network)
    assert network[0] is layer


@pytest.mark.parametrize(
    ("layer", "form"),
    [
        (nn.ConvTranspose2d(6, 5, 4), WholeMap),
        (nn.ConvTranspose2d(6, 5, 4, 2, 1), PhaseUpConv),
        (JoinedConvTranspose2d((6, 6), 5, 4, 2, 1), PhaseUpConv),
    ],
    ids=["of a pixel", "doubling", "joined"],
)
def test_no_transposed_layer_stays_in_bfloat16(layer: nn.ConvTranspose2d, form: type[nn.Module]) -> None:
    exact, rounded = nn.Sequential(copy.deepcopy(layer)).eval(), nn.Sequential(layer.bfloat16()).eval()
    rewrite_for_graphs(exact.requires_grad_(False))
    rewrite_for_graphs(rounded.requires_grad_(False))
    assert type(exact[0]) is type(layer) and isinstance(rounded[0], form)
