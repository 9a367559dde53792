"""The forms of layers that a graph is written with, for whatever runs it.

A graph does not know its machine, and the same model must give the same file, so nothing is measured: the table of
`forms` says which form a layer has in graphs. These forms, of standard operators, were faster in ONNX Runtime 1.31 on 2
cores with AVX-512, fp32, batches 1 and 8.

| layer | form | time of the trained layer over its own |
|---|---|---|
| up-convolution of 128 channels or more | transposed | 1.3 to 1.9 zero-padded, 0.95 to 1.5 replicated |
| up-convolution of fewer | as trained | phases 0.89 to 1.7, transposed 0.83 to 1.7, and below 1 at batch 8 |
| in bfloat16 | as trained | TensorRT-RTX 1.7 builds no transposed ones |
| convolution with constant channels | constant channels | 1.06 to 1.6; once 0.62 at batch 1 |
"""

from torch import nn

from .fold_norm import fold_norms
from .forms import graph_form

__all__ = ["rewrite_for_graphs"]


def rewrite_for_graphs(network: nn.Module) -> None:
    """Put the forms for graphs in the place of a network's layers.

    Args:
        network: trained, in evaluation, in the precision of the graph; it is changed.
    """
    fold_norms(network)
    for part in list(network.modules()):
        for name, layer in part.named_children():
            build = graph_form(layer)
            if build is not None:
                setattr(part, name, build())
