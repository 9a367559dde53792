"""fir_resample: double or halve the sides of a map under the filter [1, 3, 3, 1], in one pass."""

from .op import fir_resample

__all__ = ["fir_resample"]
