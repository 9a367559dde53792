"""phase_epilogue: the four phases of a rewritten up-convolution, activated while they are stored interleaved."""

from .op import phase_epilogue

__all__ = ["phase_epilogue"]
