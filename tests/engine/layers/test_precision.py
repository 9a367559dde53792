import pytest
import torch
from torch import nn

from zellige.engine.layers.convolutions import UpConv
from zellige.engine.layers.norms import GluLayerNorm, MapNorm
from zellige.engine.layers.precision import cast_maps


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_layers_of_maps_are_cast_and_no_others(dtype: torch.dtype) -> None:
    maps = [nn.Conv2d(1, 1, 1), nn.ConvTranspose2d(1, 1, 1), UpConv(1, 1, "zeros"), MapNorm(1, 1), GluLayerNorm(1, 1)]
    others = [nn.Linear(1, 1), nn.BatchNorm2d(1), nn.LayerNorm(1)]
    network = nn.Sequential(*maps, *others)
    assert cast_maps(network, dtype) is network
    assert {tensor.dtype for layer in maps for tensor in layer.parameters()} == {dtype}
    assert {tensor.dtype for layer in others for tensor in layer.parameters()} == {torch.float32}
