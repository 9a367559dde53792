"""Our kernels inside engines of full TensorRT: their nodes, the plugins that describe them, and their code as PTX."""

from .graph import split_for_plugins
from .register import register_plugins

__all__ = ["register_plugins", "split_for_plugins"]
