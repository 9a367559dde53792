"""How the Triton kernels of rearrange cut their work: blocks of queries and keys, and columns that a program owns.

A program keeps float32 sums for the columns that it owns. At 64 queries by 512 columns they already fill half the
registers of a multiprocessor (256 KiB on A100 and H100). So there are two ways to be fast at this width, and tuning
decides: 64 queries with all columns, or 128 queries with half of the columns. The second way computes all scores twice,
which is half as many multiplications again at Dk = Dv, but it reads the keys half as often.
"""

from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl

from ..triton.tuning import INTERPRETED, tuned

INTERPRETER = tl.constexpr(INTERPRETED)

# The interpreter takes small blocks in two parts, so that tests meet every branch.
_SMALL = {"QUERIES": 32, "KEYS": 32, "PARTS": 2}
_UNPARTED = 128  # up to this width, computing scores twice does not pay
# The registers of a thread's 255 that sums and scores may take before ptxas 12.9 spills more than a few, by the bytes
# of a value: with one width of sums, and with two. The rest hold addresses and operands, which float32 keeps in
# registers because it has no tensor cores.
_REGISTERS = {2: (160, 144), 4: (72, 38)}


def _configuration(queries: int, keys: int, parts: int, warps: int, stages: int) -> triton.Config:
    return triton.Config({"QUERIES": queries, "KEYS": keys, "PARTS": parts}, num_warps=warps, num_stages=stages)


FORWARD = [
    _configuration(*numbers)
    for numbers in (
        (16, 32, 4, 4, 1),
        (32, 32, 4, 4, 1),
        (64, 32, 4, 8, 1),
        (64, 32, 1, 8, 2),
        (64, 64, 1, 4, 3),
        (64, 64, 1, 8, 2),
        (64, 64, 2, 8, 3),
        (128, 32, 2, 8, 2),
        (128, 64, 2, 8, 2),
        (128, 64, 1, 8, 2),
    )
]
BACKWARD = [
    _configuration(*numbers)
    for numbers in (
        (16, 16, 4, 4, 1),
        (32, 32, 4, 4, 1),
        (32, 32, 1, 8, 1),
        (32, 32, 4, 8, 1),
        (32, 64, 2, 8, 2),
        (64, 32, 2, 8, 2),
        (64, 64, 4, 8, 2),
        (64, 64, 2, 8, 2),
        (64, 64, 1, 8, 2),
    )
]


def tuned_blocks(configurations: list[triton.Config], *owned: str) -> Callable[[Any], Any]:
    """Decorate a kernel so that the fastest configuration is measured once for each width, dtype and number of rows.

    Sums run over blocks of keys, so their last bits depend on the choice, which is kept on disk.

    Args:
        configurations: to choose from; the first one fits every width and dtype.
        owned: the names of the widths whose columns are divided among programs.
    """

    def fitting(every: list[triton.Config], arguments: dict[str, Any], **constants: Any) -> list[triton.Config]:
        given = arguments | constants
        return fitting_blocks(every, [given[name] for name in owned], given["q"].element_size())

    return tuned(configurations, "DK", "DV", "ROWS", fitting=fitting, interpreted=_SMALL)


def fitting_blocks(configurations: list[triton.Config], owned: list[int], bytes_each: int) -> list[triton.Config]:
    """Return the configurations whose sums and scores stay in registers, the largest blocks last.

    Args:
        configurations: FORWARD or BACKWARD.
        owned: the widths whose columns are divided among programs: two if rows are keys.
        bytes_each: bytes of a value.
    """
    kept = configurations[:1]
    for config in configurations[1:]:
        queries, keys, parts = (config.kwargs[name] for name in ("QUERIES", "KEYS", "PARTS"))
        if parts > 1 and all(width <= _UNPARTED for width in owned):
            continue
        if bytes_each == 4 and (queries > 64 or keys > 32):
            continue
        sums = keys if len(owned) == 2 else queries
        numbers = sums * sum(_columns(width, parts) for width in owned) + queries * keys
        if numbers <= _REGISTERS[bytes_each][len(owned) - 1] * 32 * config.num_warps:
            kept.append(config)
    return kept


def widths(prefix: str, width: str) -> dict[str, Callable[[dict[str, Any]], int]]:
    """Return the heuristics that split a program's OWN columns of a width into MAIN, a power of two, and TAIL, or 0.

    Tiles of Triton are powers of two: 520 columns would take one tile of 1024, or a main and a tail of 512 + 16.
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
    """Return how many columns are multiplied at a time: chunks of 64 waste a tenth of 520 columns, one tile a half."""
    return max(16, min(64, triton.next_power_of_2(width)))


def sizes(rows: int, length: int) -> dict[str, int]:
    """Return ROWS, the class of sizes that are tuned alike, and LENGTH, which only the interpreter must know.

    More than 65536 rows keep any device busy, fewer than 256 none.
    """
    rows = 1 << min(16, max(8, (rows - 1).bit_length()))
    return {"ROWS": rows, "LENGTH": length if INTERPRETED else 0}


def _own(width: int, parts: int) -> int:
    # Parts are multiples of 16, the narrowest product, so that their rows begin at multiples of 32 bytes too.
    return triton.cdiv(triton.cdiv(width, parts), 16) * 16


def _main(own: int) -> int:
    return 1 << own.bit_length() - 1


def _tail(own: int) -> int:
    rest = own - _main(own)
    return triton.next_power_of_2(rest) if rest else 0


def _columns(width: int, parts: int) -> int:
    own = _own(width, parts)
    return _main(own) + _tail(own)


@triton.jit
def load_rows(rows, first, count, start, limit, ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr):
    """Load COLUMNS from `start` on of the rows from `first` on: zero if a row passes `count`, a column `limit`."""
    # `first` is int64; rows within the tile are int32.
    row = tl.arange(0, ROWS)
    column = start + tl.arange(0, COLUMNS)
    inside = (row < count)[:, None] & (column < limit)[None, :]
    return tl.load(rows + first * WIDTH + row[:, None] * WIDTH + column[None, :], mask=inside, other=0.0)


@triton.jit
def store_rows(rows, first, count, start, limit, tile, ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr):
    """Store a tile where `load_rows` would read it."""
    row = tl.arange(0, ROWS)
    column = start + tl.arange(0, COLUMNS)
    inside = (row < count)[:, None] & (column < limit)[None, :]
    at = rows + first * WIDTH + row[:, None] * WIDTH + column[None, :]
    tl.store(at, tile, mask=inside)


@triton.jit
def dot(a, b, sums):
    """Add the product of two tiles to sums; products of float32 are full, not TF32."""
    if INTERPRETER:
        # The interpreter multiplies the bits of bfloat16 as if they were integers.
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, sums, input_precision="ieee")


@triton.jit
def products(
    a, b, a_first, a_count, b_first, b_count,
    A: tl.constexpr, B: tl.constexpr, WIDTH: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Multiply every row of a tile of a with every row of a tile of b: [A, B], float32."""
    sums = tl.zeros((A, B), tl.float32)
    for start in range(0, WIDTH, CHUNK):
        left = load_rows(a, a_first, a_count, start, WIDTH, A, CHUNK, WIDTH)
        right = load_rows(b, b_first, b_count, start, WIDTH, B, CHUNK, WIDTH)
        sums = dot(left, tl.trans(right), sums)
    return sums
