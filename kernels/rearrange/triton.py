"""rearrange by blocks of queries and keys: scores live in registers only, rows are multiplied in chunks of columns."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .tiles import BACKWARD, FORWARD, INTERPRETED, chunk, column_blocks, sizes, tuned, widths

_INTERPRETED = tl.constexpr(INTERPRETED)


def rearrange_triton(q: Tensor, k: Tensor, v: Tensor, y: Tensor, log_sums: Tensor, scale: float) -> None:
    """Compute y and the logarithms of the sums [N, T] from contiguous tensors that are not empty."""
    (n, tokens, key_width), (_, keys, width) = q.shape, v.shape

    def grid(chosen: dict[str, Any]) -> tuple[int, int]:
        return n * triton.cdiv(tokens, chosen["QUERIES"]), column_blocks(width, chosen)

    _forward[grid](
        q, k, v, y, log_sums, scale, tokens, S=keys, DK=key_width, DV=width, CHUNK=chunk(key_width),
        **sizes(n * tokens, keys),
    )  # fmt: skip


def rearrange_backward_triton(
    gradient: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    y: Tensor,
    log_sums: Tensor,
    dq: Tensor,
    dk: Tensor,
    dv: Tensor,
    scale: float,
) -> None:
    """Compute the gradients; every sum has one owner and a fixed order, so that nothing is added atomically."""
    (n, tokens, key_width), (_, keys, width) = q.shape, v.shape
    deltas = torch.empty_like(log_sums)
    _deltas[(n * tokens,)](gradient, y, deltas, DV=width, COLUMNS=triton.next_power_of_2(width))

    def of_queries(chosen: dict[str, Any]) -> tuple[int, int]:
        return n * triton.cdiv(tokens, chosen["QUERIES"]), column_blocks(key_width, chosen)

    def of_keys(chosen: dict[str, Any]) -> tuple[int, int]:
        return n * triton.cdiv(keys, chosen["KEYS"]), max(column_blocks(w, chosen) for w in (key_width, width))

    shared = {"DK": key_width, "DV": width, "K_CHUNK": chunk(key_width), "V_CHUNK": chunk(width)}
    _backward_queries[of_queries](
        gradient, q, k, v, log_sums, deltas, dq, scale, tokens, S=keys, **shared, **sizes(n * tokens, keys)
    )
    _backward_keys[of_keys](
        gradient, q, k, v, log_sums, deltas, dk, dv, scale, keys, T=tokens, **shared, **sizes(n * keys, tokens)
    )


@triton.jit
def _load(rows, first, count, start, limit, ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr):
    # Rows are counted from an int64, and within the tile from int32.
    row = tl.arange(0, ROWS)
    column = start + tl.arange(0, COLUMNS)
    inside = (row < count)[:, None] & (column < limit)[None, :]
    return tl.load(rows + first * WIDTH + row[:, None] * WIDTH + column[None, :], mask=inside, other=0.0)


@triton.jit
def _store(rows, first, count, start, limit, tile, ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr):
    row = tl.arange(0, ROWS)
    column = start + tl.arange(0, COLUMNS)
    inside = (row < count)[:, None] & (column < limit)[None, :]
    at = rows + first * WIDTH + row[:, None] * WIDTH + column[None, :]
    tl.store(at, tile, mask=inside)


@triton.jit
def _dot(a, b, sums):
    if _INTERPRETED:
        # The interpreter multiplies the bits of bfloat16 as if they were integers.
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, sums, input_precision="ieee")


@triton.jit
def _products(
    a, b, a_first, a_count, b_first, b_count,
    A: tl.constexpr, B: tl.constexpr, WIDTH: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Multiply every row of a tile of a with every row of a tile of b: [A, B], float32."""
    sums = tl.zeros((A, B), tl.float32)
    for start in tl.static_range(0, WIDTH, CHUNK):
        left = _load(a, a_first, a_count, start, WIDTH, A, CHUNK, WIDTH)
        right = _load(b, b_first, b_count, start, WIDTH, B, CHUNK, WIDTH)
        sums = _dot(left, tl.trans(right), sums)
    return sums


@tuned(FORWARD, "DV")
@triton.heuristics(widths("", "DV"))
@triton.jit
def _forward(
    q,
    k,
    v,
    y,
    log_sums,
    scale,
    tokens,
    S: tl.constexpr,
    DK: tl.constexpr,
    DV: tl.constexpr,
    CHUNK: tl.constexpr,
    ROWS: tl.constexpr,
    LENGTH: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    PARTS: tl.constexpr,
    OWN: tl.constexpr,
    MAIN: tl.constexpr,
    TAIL: tl.constexpr,
):
    blocks = tl.cdiv(tokens, QUERIES)
    sample = (tl.program_id(0) // blocks).to(tl.int64)
    first = (tl.program_id(0) % blocks) * QUERIES
    row, count = sample * tokens + first, tokens - first
    column = tl.program_id(1) * OWN
    limit = tl.minimum(column + OWN, DV)
    highest = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    main = tl.zeros((QUERIES, MAIN), tl.float32)
    if TAIL:
        tail = tl.zeros((QUERIES, TAIL), tl.float32)
    for start in range(0, S, KEYS):
        key, left = sample * S + start, S - start
        scores = _products(q, k, row, count, key, left, QUERIES, KEYS, DK, CHUNK) * scale
        scores = tl.where((tl.arange(0, KEYS) < left)[None, :], scores, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, axis=1))
        # -inf less -inf would be NaN before a key that counts has come.
        base = tl.where(higher == float("-inf"), 0.0, higher)
        weights = tl.exp(scores - base[:, None])
        shrink = tl.exp(highest - base)
        total = total * shrink + tl.sum(weights, axis=1)
        highest = higher
        weights = weights.to(v.dtype.element_ty)
        value = _load(v, key, left, column, limit, KEYS, MAIN, DV)
        main = _dot(weights, value, main * shrink[:, None])
        if TAIL:
            value = _load(v, key, left, column + MAIN, limit, KEYS, TAIL, DV)
            tail = _dot(weights, value, tail * shrink[:, None])
    _store(y, row, count, column, limit, main / total[:, None], QUERIES, MAIN, DV)
    if TAIL:
        _store(y, row, count, column + MAIN, limit, tail / total[:, None], QUERIES, TAIL, DV)
    query = tl.arange(0, QUERIES)
    # Programs of one row have the same sums: the first writes them.
    written = tl.where(column == 0, count, 0)
    tl.store(log_sums + row + query, highest + tl.log(total), mask=query < written)


@triton.jit
def _deltas(gradient, y, deltas, DV: tl.constexpr, COLUMNS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, COLUMNS)
    slope = tl.load(gradient + row * DV + column, mask=column < DV, other=0.0).to(tl.float32)
    value = tl.load(y + row * DV + column, mask=column < DV, other=0.0).to(tl.float32)
    tl.store(deltas + row, tl.sum(slope * value, axis=0))


@tuned(BACKWARD, "DK")
@triton.heuristics(widths("", "DK"))
@triton.jit
def _backward_queries(
    gradient,
    q,
    k,
    v,
    log_sums,
    deltas,
    dq,
    scale,
    tokens,
    S: tl.constexpr,
    DK: tl.constexpr,
    DV: tl.constexpr,
    K_CHUNK: tl.constexpr,
    V_CHUNK: tl.constexpr,
    ROWS: tl.constexpr,
    LENGTH: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    PARTS: tl.constexpr,
    OWN: tl.constexpr,
    MAIN: tl.constexpr,
    TAIL: tl.constexpr,
):
    blocks = tl.cdiv(tokens, QUERIES)
    sample = (tl.program_id(0) // blocks).to(tl.int64)
    first = (tl.program_id(0) % blocks) * QUERIES
    row, count = sample * tokens + first, tokens - first
    column = tl.program_id(1) * OWN
    limit = tl.minimum(column + OWN, DK)
    query = tl.arange(0, QUERIES)
    log_sum = tl.load(log_sums + row + query, mask=query < count, other=0.0)[:, None]
    delta = tl.load(deltas + row + query, mask=query < count, other=0.0)[:, None]
    main = tl.zeros((QUERIES, MAIN), tl.float32)
    if TAIL:
        tail = tl.zeros((QUERIES, TAIL), tl.float32)
    for start in range(0, S, KEYS):
        key, left = sample * S + start, S - start
        scores = _products(q, k, row, count, key, left, QUERIES, KEYS, DK, K_CHUNK) * scale
        slopes = _products(gradient, v, row, count, key, left, QUERIES, KEYS, DV, V_CHUNK)
        # Keys that are not there: their rows of k were read as zeros, but a NaN must not meet them.
        weights = tl.where((tl.arange(0, KEYS) < left)[None, :], tl.exp(scores - log_sum), 0.0)
        slopes = (weights * (slopes - delta)).to(k.dtype.element_ty)
        main = _dot(slopes, _load(k, key, left, column, limit, KEYS, MAIN, DK), main)
        if TAIL:
            more = _load(k, key, left, column + MAIN, limit, KEYS, TAIL, DK)
            tail = _dot(slopes, more, tail)
    _store(dq, row, count, column, limit, main * scale, QUERIES, MAIN, DK)
    if TAIL:
        _store(dq, row, count, column + MAIN, limit, tail * scale, QUERIES, TAIL, DK)


@tuned(BACKWARD, "DK", "DV")
@triton.heuristics(widths("K_", "DK") | widths("V_", "DV"))
@triton.jit
def _backward_keys(
    gradient,
    q,
    k,
    v,
    log_sums,
    deltas,
    dk,
    dv,
    scale,
    keys,
    T: tl.constexpr,
    DK: tl.constexpr,
    DV: tl.constexpr,
    K_CHUNK: tl.constexpr,
    V_CHUNK: tl.constexpr,
    ROWS: tl.constexpr,
    LENGTH: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    PARTS: tl.constexpr,
    K_OWN: tl.constexpr,
    K_MAIN: tl.constexpr,
    K_TAIL: tl.constexpr,
    V_OWN: tl.constexpr,
    V_MAIN: tl.constexpr,
    V_TAIL: tl.constexpr,
):
    blocks = tl.cdiv(keys, KEYS)
    sample = (tl.program_id(0) // blocks).to(tl.int64)
    first = (tl.program_id(0) % blocks) * KEYS
    row, count = sample * keys + first, keys - first
    k_column, v_column = tl.program_id(1) * K_OWN, tl.program_id(1) * V_OWN
    k_limit, v_limit = tl.minimum(k_column + K_OWN, DK), tl.minimum(v_column + V_OWN, DV)
    k_main = tl.zeros((KEYS, K_MAIN), tl.float32)
    v_main = tl.zeros((KEYS, V_MAIN), tl.float32)
    if K_TAIL:
        k_tail = tl.zeros((KEYS, K_TAIL), tl.float32)
    if V_TAIL:
        v_tail = tl.zeros((KEYS, V_TAIL), tl.float32)
    for start in range(0, T, QUERIES):
        query, left = sample * T + start, T - start
        inside = tl.arange(0, QUERIES) < left
        log_sum = tl.load(log_sums + query + tl.arange(0, QUERIES), mask=inside, other=0.0)[None, :]
        delta = tl.load(deltas + query + tl.arange(0, QUERIES), mask=inside, other=0.0)[None, :]
        scores = _products(k, q, row, count, query, left, KEYS, QUERIES, DK, K_CHUNK) * scale
        slopes = _products(v, gradient, row, count, query, left, KEYS, QUERIES, DV, V_CHUNK)
        weights = tl.where(inside[None, :], tl.exp(scores - log_sum), 0.0)
        slopes = (weights * (slopes - delta)).to(q.dtype.element_ty)
        weights = weights.to(q.dtype.element_ty)
        more = _load(q, query, left, k_column, k_limit, QUERIES, K_MAIN, DK)
        k_main = _dot(slopes, more, k_main)
        more = _load(gradient, query, left, v_column, v_limit, QUERIES, V_MAIN, DV)
        v_main = _dot(weights, more, v_main)
        if K_TAIL:
            more = _load(q, query, left, k_column + K_MAIN, k_limit, QUERIES, K_TAIL, DK)
            k_tail = _dot(slopes, more, k_tail)
        if V_TAIL:
            more = _load(gradient, query, left, v_column + V_MAIN, v_limit, QUERIES, V_TAIL, DV)
            v_tail = _dot(weights, more, v_tail)
    _store(dk, row, count, k_column, k_limit, k_main * scale, KEYS, K_MAIN, DK)
    _store(dv, row, count, v_column, v_limit, v_main, KEYS, V_MAIN, DV)
    if K_TAIL:
        _store(dk, row, count, k_column + K_MAIN, k_limit, k_tail * scale, KEYS, K_TAIL, DK)
    if V_TAIL:
        _store(dv, row, count, v_column + V_MAIN, v_limit, v_tail, KEYS, V_TAIL, DV)
