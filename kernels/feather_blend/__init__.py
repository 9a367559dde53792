"""feather_blend: the weighted mean of overlapping patches, as pixels.

It has no graph.py, because it belongs to no network: panoramas are blended after their networks have run.
"""

from .op import feather_blend

__all__ = ["feather_blend"]
