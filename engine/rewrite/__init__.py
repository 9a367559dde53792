"""Exact rewrites of trained layers for inference: the same function in real arithmetic, for less work.

| rewrite | what it does | saves |
|---|---|---|
| `up_conv` | nearest x2 and a 3x3 convolution as four phases on the small map, or one transposed one | 2.25x of it |
| `up_pointwise` | nearest x2 and a 1x1 convolution in the other order | 4x of it |
| `winograd` | 3x3 convolutions on CPUs, also behind nearest x2, by tiles of 2x2 pixels | 2.25x of it, 4x behind x2 |
| `constant_channels` | constant input channels as nine bias vectors, by place at the border | c / (c + C) of it |
| `fold_norm`, `scale_shift` | batch norm into the layer in front, or to a scale and a shift | a pass over the map |
| `fold_weight` | spectral norm and gains into the weight | K C R^2 multiplications a call |
| `split_linear` | latents once an image, coordinates once a lattice | 32x of it for 128 and 4 at 1024 places |
| `modulated_conv` | StyleGAN2's style on activations and not on weights | 3 N K C R^2 multiplications |

Each is a file with one function, which takes trained layers, leaves them as they are, and returns a module in
evaluation mode without gradients, for maps in either memory format; only `modulated_conv` is that module's function
itself. Weights are summed in float64 and cast to the layer's dtype. A layer that a rewrite does not apply to is a
ShapeError. Which of them pay depends on shapes and devices: each file says when it loses, and `plan` measures for every
layer of a network which of its forms is the fastest here; `rewritten` also puts them in.
"""

from .constant_channels import ConstantChannelsConv, constant_channels
from .fold_norm import fold_norm, scale_shift
from .fold_weight import fold_weight
from .modulated_conv import modulated_conv
from .plan import Choice, apply, plan, rewritten
from .split_linear import SplitLinear, split_linear
from .up_conv import PhaseUpConv, TransposedUpConv, up_conv
from .up_pointwise import UpPointwise, up_pointwise
from .winograd import WinogradConv, winograd

__all__ = [
    "Choice",
    "ConstantChannelsConv",
    "PhaseUpConv",
    "SplitLinear",
    "TransposedUpConv",
    "UpPointwise",
    "WinogradConv",
    "apply",
    "constant_channels",
    "fold_norm",
    "fold_weight",
    "modulated_conv",
    "plan",
    "rewritten",
    "scale_shift",
    "split_linear",
    "up_conv",
    "up_pointwise",
    "winograd",
]
