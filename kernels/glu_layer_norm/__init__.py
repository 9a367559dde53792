"""glu_layer_norm: layer norm of one half of the channels, gated by the other half, in two passes."""

from .op import glu_layer_norm

__all__ = ["glu_layer_norm"]
