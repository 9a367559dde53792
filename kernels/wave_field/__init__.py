"""wave_field: plane waves and noise at every cell of a map, in one pass.

The kernel has no graph.py. An exported network has the operators of reference.py instead, because ONNX gathers the
table's cells and the factors' rows in passes of their own in any case.
"""

from .op import wave_field

__all__ = ["wave_field"]
