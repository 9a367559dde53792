"""Puts in the forms of layers that ONNX graphs are exported with, whatever runtime will run them.

Nothing is measured, because a graph may run on any machine and the same model must give the same file. Instead the
table of `forms` says which form a layer has in graphs. The forms consist of standard operators. They were chosen
from these times in ONNX Runtime 1.31 on 2 cores with AVX-512, fp32, batches 1 and 8:

| layer | form | time of the trained layer over its own |
|---|---|---|
| up-convolution of 128 channels or more | transposed | 1.3 to 1.9 zero-padded, 0.95 to 1.5 replicated |
| up-convolution of fewer | as trained | phases 0.89 to 1.7, transposed 0.83 to 1.7, and below 1 at batch 8 |
| any up-convolution in bfloat16 | as trained | TensorRT-RTX 1.7 builds no transposed convolutions in bfloat16 |
| transposed convolution in bfloat16 | phases; a matrix product of a map of one cell | for the same reason |
| convolution with constant channels | constant channels | 1.06 to 1.6, but once 0.62 at batch 1 |
"""

from torch import nn

from .fold_norm import fold_norms
from .forms import graph_form

__all__ = ["rewrite_for_graphs"]


def rewrite_for_graphs(network: nn.Module) -> None:
    """Replace the layers of a network with their forms for graphs.

    Args:
        network: a trained network, in evaluation and in the precision of the graph; it is changed.
    """
    fold_norms(network)
    for part in list(network.modules()):
        for name, layer in part.named_children():
            build = graph_form(layer)
            if build is not None:
                setattr(part, name, build())
