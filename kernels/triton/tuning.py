"""Which configuration of a Triton kernel runs: measured on a device, the first one everywhere else."""

import os
from collections.abc import Callable
from typing import Any

import triton

from .tiles import tile

__all__ = ["INTERPRETED", "STREAMING", "size_class", "tuned", "tuned_tiles"]

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

# Configurations of kernels whose limit is memory: 8 or 16 values a thread, which are one to four loads of 128 bits.
STREAMING = [
    triton.Config({"VALUES": values}, num_warps=warps) for values, warps in ((1024, 4), (2048, 4), (2048, 8), (4096, 8))
]


def tuned(
    configurations: list[triton.Config],
    *key: str,
    fitting: Callable[..., list[triton.Config]] | None = None,
    interpreted: dict[str, int] | None = None,
) -> Callable[[Any], Any]:
    """Decorate a kernel so that the fastest configuration is measured once for each key and kept on disk.

    Triton keeps the choice beside its compiled kernels, for each architecture, Triton version and kernel source. Only
    kernels whose results do not depend on the configuration may claim equal bits from one machine to the next.

    Args:
        configurations: to choose from. The first one fits every call; kernels are built ahead of time with it.
        key: constants that tell calls apart, beside the dtypes.
        fitting: drops configurations that do not fit a call, as Triton's early_config_prune.
        interpreted: constants for the interpreter, which measures nothing; None takes the first configuration.
    """
    single = configurations[0].kwargs if interpreted is None else interpreted

    def decorate(kernel: Any) -> Any:
        if INTERPRETED:
            return triton.heuristics({name: lambda _, name=name: single[name] for name in single})(kernel)
        prune = {} if fitting is None else {"early_config_prune": fitting}
        return triton.autotune(configurations, key=list(key), prune_configs_by=prune, cache_results=True)(kernel)

    return decorate


def tuned_tiles(*key: str) -> Callable[[Any], Any]:
    """Decorate a kernel over tiles of PIXELS by CHANNELS: tuning decides their size, `tile` their shape.

    The kernel has arguments `pixels`, `channels`, the constants CHANNELS_LAST, SIZE (`size_class`), VALUES, PIXELS and
    CHANNELS, and no sum across its tile.
    """

    def shape(axis: int) -> Callable[[dict[str, Any]], int]:
        return lambda given: tile(given["CHANNELS_LAST"], given["pixels"], given["channels"], given["VALUES"])[axis]

    def decorate(kernel: Any) -> Any:
        shaped = triton.heuristics({"PIXELS": shape(0), "CHANNELS": shape(1)})(kernel)
        return tuned(STREAMING, "CHANNELS_LAST", "SIZE", *key)(shaped)

    return decorate


def size_class(values: int) -> int:
    """Return the class of sizes that are tuned alike: the next power of 16 from 2^16 on, 2^28 for all larger sizes."""
    return 1 << min(28, max(16, -(-(values - 1).bit_length() // 4) * 4))
