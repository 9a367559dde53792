"""feather_blend: the weighted mean of overlapping patches, as pixels.

It has no graph.py: it belongs to no network, because panoramas are blended behind them.
"""

from .op import feather_blend

__all__ = ["feather_blend"]
