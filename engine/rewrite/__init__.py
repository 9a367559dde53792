"""Exact rewrites of trained layers for inference: the same function in real arithmetic, for less work.

| rewrite | what it does | saves |
|---|---|---|
| `up_conv` | nearest x2 and a 3x3 convolution as four phases on the small map, or one transposed one | 2.25x of it |
| `winograd` | 3x3 convolutions on CPUs, also behind nearest x2, by tiles of 2x2 pixels | 2.25x of it, 4x behind x2 |
| `constant_channels` | constant input channels as nine bias vectors, by place at the border | c / (c + C) of it |
| `fold_norm` | batch norm into the layer in front | a pass over the map |
| `fold_weight` | spectral norm and gains into the weight | K C R^2 multiplications a call |

Each is a file with one function, which takes trained layers, leaves them as they are, and returns a module in
evaluation mode without gradients, for maps in either memory format. Weights are summed in float64 and cast to the
layer's dtype. A rewrite refuses other layers with a ShapeError. Which rewrites pay depends on shapes and devices: each
file says when it loses. `forms` is the table of the layers that have other forms; `plan` measures which form of every
layer of a network is the fastest here, and `rewritten` also puts them in; `for_onnx` puts in the forms for graphs.
"""

from .constant_channels import ConstantChannelsConv, constant_channels
from .fold_norm import fold_norm
from .fold_weight import fold_weight
from .plan import Choice, apply, plan, rewritten
from .up_conv import PhaseUpConv, TransposedUpConv, up_conv
from .winograd import WinogradConv, winograd

__all__ = [
    "Choice",
    "ConstantChannelsConv",
    "PhaseUpConv",
    "TransposedUpConv",
    "WinogradConv",
    "apply",
    "constant_channels",
    "fold_norm",
    "fold_weight",
    "plan",
    "rewritten",
    "up_conv",
    "winograd",
]
