"""Exact rewrites of trained layers for inference: the same function in real arithmetic, for less work.

| rewrite | what it does | multiplications |
|---|---|---|
| `up_conv` | runs nearest x2 and a 3x3 convolution as four phases, or one transposed one | 2.25x fewer |
| `winograd` | runs 3x3 convolutions on CPUs in tiles of 2x2 pixels, also after nearest x2 | 2.25x fewer, 4x after x2 |
| `strided_winograd` | runs 4x4 convolutions of stride 2 on CPUs in tiles, transposed ones too | up to 2.25x fewer |
| `styled_winograd` | runs StyleGAN2's convolutions on CPUs in tiles, with the style | 2.25x or 4x fewer, up 1.44x |
| `whole_map` | runs convolutions that cover their map, or that spread a pixel, as a matrix product | as many |
| `constant_channels` | turns constant input channels into nine bias vectors, by place | c / (c + C) fewer |
| `fold_norm` | folds a batch norm into the layer before it | K H W fewer, and no pass over the map |
| `fold_weight` | folds spectral norm into the weight | K C R^2 fewer in each call |

Each is a function that takes trained layers, leaves them unchanged, and returns a module in evaluation mode without
gradients, for maps in either memory format. Weights are summed in float64 and cast to the layer's dtype. A rewrite
refuses other layers with a ShapeError. Shapes and devices decide which rewrites pay, and each file says when its
rewrite loses. `forms` is the table of layers that have other forms. `plan` measures the forms of a network's layers and
chooses the fastest here; `rewritten` also puts the chosen forms in. `for_onnx` puts in the forms for graphs.
"""

from .constant_channels import ConstantChannelsConv, constant_channels
from .fold_norm import fold_norm
from .fold_weight import fold_weight
from .plan import Choice, apply, plan, rewritten
from .up_conv import PhaseUpConv, TransposedUpConv, up_conv
from .whole_map import WholeMap, whole_map
from .winograd import WinogradConv, strided_winograd, styled_winograd, winograd

__all__ = [
    "Choice",
    "ConstantChannelsConv",
    "PhaseUpConv",
    "TransposedUpConv",
    "WholeMap",
    "WinogradConv",
    "apply",
    "constant_channels",
    "fold_norm",
    "fold_weight",
    "plan",
    "rewritten",
    "strided_winograd",
    "styled_winograd",
    "up_conv",
    "whole_map",
    "winograd",
]
