"""How the Triton kernels of rearrange cut their work: blocks of queries and keys, and columns that a program owns.

A program keeps float32 sums for the columns that it owns, and 64 queries by 512 columns are already half the registers
of a multiprocessor (256 KiB on A100 and H100). So there are two ways to be fast at that width, and tuning decides: 64
queries with all columns, or 128 queries with half of the columns, whose programs compute all scores again. The second
multiplies half as much again at Dk = Dv, and reads the keys half as often.
"""

import os
from collections.abc import Callable
from typing import Any

import triton

# Tuning is for devices; the interpreter takes one small tile, in parts, so that tests meet every branch.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_SMALL = {"QUERIES": 32, "KEYS": 32, "PARTS": 2}
_UNPARTED = 128  # a width that is not worth computing scores twice
_REGISTERS = 168  # of the 255 of a thread that sums and scores may take; the rest are addresses and operands


def _configuration(queries: int, keys: int, parts: int, warps: int, stages: int) -> triton.Config:
    return triton.Config({"QUERIES": queries, "KEYS": keys, "PARTS": parts}, num_warps=warps, num_stages=stages)


FORWARD = [
    _configuration(*numbers)
    for numbers in (
        (16, 32, 4, 4, 1),
        (32, 32, 4, 4, 1),
        (64, 32, 4, 8, 1),
        (64, 32, 1, 8, 2),
        (64, 64, 1, 8, 1),
        (64, 64, 1, 4, 3),
        (64, 64, 2, 8, 2),
        (128, 32, 2, 8, 2),
        (128, 64, 2, 8, 1),
        (128, 64, 1, 8, 2),
    )
]
BACKWARD = [
    _configuration(*numbers)
    for numbers in (
        (16, 16, 4, 4, 1),
        (32, 32, 4, 4, 1),
        (32, 32, 4, 8, 1),
        (32, 64, 2, 8, 1),
        (64, 32, 2, 8, 1),
        (64, 64, 4, 8, 1),
        (64, 64, 2, 8, 1),
        (64, 64, 1, 4, 2),
    )
]


def tuned(configurations: list[triton.Config], *owned: str) -> Callable[[Any], Any]:
    """Decorate a kernel so that the fastest configuration is measured once for each width, dtype and class of sizes.

    Args:
        configurations: to choose from; the first one fits every width and dtype.
        owned: the names of the widths whose columns are divided among programs.
    """

    def fitting(every: list[triton.Config], arguments: dict[str, Any], **constants: Any) -> list[triton.Config]:
        given = arguments | constants
        kept = [every[0]]
        for config in every[1:]:
            queries, keys, parts = (config.kwargs[name] for name in ("QUERIES", "KEYS", "PARTS"))
            if parts > 1 and all(given[name] <= _UNPARTED for name in owned):
                continue
            # Without tensor cores operands are held in registers too.
            if given["q"].element_size() == 4 and (queries > 64 or keys > 32):
                continue
            sums = keys if len(owned) == 2 else queries
            numbers = sums * sum(_columns(given[name], parts) for name in owned) + queries * keys
            if numbers <= _REGISTERS * 32 * config.num_warps:
                kept.append(config)
        return kept

    def decorate(kernel: Any) -> Any:
        if INTERPRETED:
            return kernel
        key = ["DK", "DV", "ROWS", "LENGTH"]
        return triton.autotune(configurations, key=key, prune_configs_by={"early_config_prune": fitting})(kernel)

    return decorate


def widths(prefix: str, width: str) -> dict[str, Callable[[dict[str, Any]], int]]:
    """Return the heuristics for columns owned in a width: OWN of them, MAIN as a power of two, TAIL another or 0.

    Tiles of Triton are powers of two; 520 columns as one such would be 1024, as a main and a tail they are 512 + 16.
    """

    def own(given: dict[str, Any]) -> int:
        return _own(given[width], given["PARTS"])

    return {
        f"{prefix}OWN": own,
        f"{prefix}MAIN": lambda given: _main(own(given)),
        f"{prefix}TAIL": lambda given: _tail(own(given)),
    }


def column_blocks(width: int, chosen: dict[str, Any]) -> int:
    """Return how many programs share the columns of a block."""
    return triton.cdiv(width, _own(width, chosen["PARTS"]))


def chunk(width: int) -> int:
    """Return the columns that are multiplied at a time: 520 in chunks of 64 wastes a tenth, in one tile a half."""
    return max(16, min(64, triton.next_power_of_2(width)))


def sizes(rows: int, length: int) -> dict[str, int]:
    """Return the classes of sizes that tuning tells apart, and under the interpreter the tile, which is not tuned."""
    classes = {"ROWS": triton.next_power_of_2(rows), "LENGTH": triton.next_power_of_2(length)}
    return classes | _SMALL if INTERPRETED else classes


def _own(width: int, parts: int) -> int:
    # Of 16, the narrowest product, also so that rows of a part begin at multiples of 32 bytes.
    return triton.cdiv(triton.cdiv(width, parts), 16) * 16


def _main(own: int) -> int:
    return 1 << own.bit_length() - 1


def _tail(own: int) -> int:
    rest = own - _main(own)
    return triton.next_power_of_2(rest) if rest else 0


def _columns(width: int, parts: int) -> int:
    own = _own(width, parts)
    return _main(own) + _tail(own)
