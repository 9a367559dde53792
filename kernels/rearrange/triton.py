"""rearrange in blocks of queries and keys: scores live in registers only, rows are multiplied in chunks of columns."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..triton.variants import FLOATS, FP32, Variant
from .tiles import (
    BACKWARD,
    FORWARD,
    INTERPRETER,
    chunk,
    column_blocks,
    dot,
    fitting_blocks,
    load_rows,
    products,
    sizes,
    store_rows,
    tuned_blocks,
    widths,
)

# Dk and Dv of the variants to build ahead of time.
_WIDTHS = ((128, 128), (256, 256), (512, 512), (512, 520))


def rearrange_triton(q: Tensor, k: Tensor, v: Tensor, y: Tensor, log_sums: Tensor, scale: float) -> None:
    """Compute y and the logarithms of the sums [N, T] from contiguous tensors that are not empty."""
    (n, tokens, key_width), (_, keys, width) = q.shape, v.shape

    def grid(chosen: dict[str, Any]) -> tuple[int, int]:
        return n * triton.cdiv(tokens, chosen["QUERIES"]), column_blocks(width, chosen)

    _forward[grid](
        q, k, v, scale, tokens, keys, y, log_sums, DK=key_width, DV=width, CHUNK=chunk(key_width),
        **sizes(n * tokens, keys), enable_fp_fusion=True,  # no sum here equals another backend's in every bit
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
    """Compute the gradients. Nothing is added atomically, because every sum has one owner and a fixed order."""
    (n, tokens, key_width), (_, keys, width) = q.shape, v.shape
    deltas = torch.empty_like(log_sums)
    columns = triton.next_power_of_2(width)
    _deltas[(n * tokens,)](gradient, y, deltas, DV=width, COLUMNS=columns, enable_fp_fusion=True)

    def of_queries(chosen: dict[str, Any]) -> tuple[int, int]:
        return n * triton.cdiv(tokens, chosen["QUERIES"]), column_blocks(key_width, chosen)

    def of_keys(chosen: dict[str, Any]) -> tuple[int, int]:
        return n * triton.cdiv(keys, chosen["KEYS"]), max(column_blocks(w, chosen) for w in (key_width, width))

    shared = {"DK": key_width, "DV": width, "K_CHUNK": chunk(key_width), "V_CHUNK": chunk(width)}
    _backward_queries[of_queries](
        gradient, q, k, v, log_sums, deltas, dq, scale, tokens, keys, **shared, **sizes(n * tokens, keys),
        enable_fp_fusion=True,
    )  # fmt: skip
    _backward_keys[of_keys](
        gradient, q, k, v, log_sums, deltas, dk, dv, scale, tokens, keys, **shared, **sizes(n * keys, tokens),
        enable_fp_fusion=True,
    )  # fmt: skip


@tuned_blocks(FORWARD, "DV")
@triton.heuristics(widths("", "DV"))
@triton.jit
def _forward(
    q,
    k,
    v,
    scale,
    tokens,
    keys,
    y,
    log_sums,
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
    # Under NumPy 2.4 the interpreter of Triton 3.6 cannot count to a runtime number.
    for start in range(0, LENGTH if INTERPRETER else keys, KEYS):
        key, left = sample * keys + start, keys - start
        scores = products(q, k, row, count, key, left, QUERIES, KEYS, DK, CHUNK) * scale
        scores = tl.where((tl.arange(0, KEYS) < left)[None, :], scores, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, axis=1))
        # Until a finite score has come, both are -inf, whose difference would be NaN.
        base = tl.where(higher == float("-inf"), 0.0, higher)
        weights = tl.exp(scores - base[:, None])
        shrink = tl.exp(highest - base)
        total = total * shrink + tl.sum(weights, axis=1)
        highest = higher
        weights = weights.to(v.dtype.element_ty)
        value = load_rows(v, key, left, column, limit, KEYS, MAIN, DV)
        main = dot(weights, value, main * shrink[:, None])
        if TAIL:
            value = load_rows(v, key, left, column + MAIN, limit, KEYS, TAIL, DV)
            tail = dot(weights, value, tail * shrink[:, None])
    store_rows(y, row, count, column, limit, main / total[:, None], QUERIES, MAIN, DV)
    if TAIL:
        store_rows(y, row, count, column + MAIN, limit, tail / total[:, None], QUERIES, TAIL, DV)
    if log_sums is not None:
        query = tl.arange(0, QUERIES)
        # All programs of a row have the same sums, so the first writes them.
        written = tl.where(column == 0, count, 0)
        tl.store(log_sums + row + query, highest + tl.log(total), mask=query < written)


@triton.jit
def _deltas(gradient, y, deltas, DV: tl.constexpr, COLUMNS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, COLUMNS)
    slope = tl.load(gradient + row * DV + column, mask=column < DV, other=0.0).to(tl.float32)
    value = tl.load(y + row * DV + column, mask=column < DV, other=0.0).to(tl.float32)
    tl.store(deltas + row, tl.sum(slope * value, axis=0))


@tuned_blocks(BACKWARD, "DK")
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
    keys,
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
    # Under NumPy 2.4 the interpreter of Triton 3.6 cannot count to a runtime number.
    for start in range(0, LENGTH if INTERPRETER else keys, KEYS):
        key, left = sample * keys + start, keys - start
        scores = products(q, k, row, count, key, left, QUERIES, KEYS, DK, K_CHUNK) * scale
        slopes = products(gradient, v, row, count, key, left, QUERIES, KEYS, DV, V_CHUNK)
        # Behind the last key rows of k were read as zeros. Their weights are set to 0, because a NaN times 0 is NaN.
        weights = tl.where((tl.arange(0, KEYS) < left)[None, :], tl.exp(scores - log_sum), 0.0)
        slopes = (weights * (slopes - delta)).to(k.dtype.element_ty)
        main = dot(slopes, load_rows(k, key, left, column, limit, KEYS, MAIN, DK), main)
        if TAIL:
            more = load_rows(k, key, left, column + MAIN, limit, KEYS, TAIL, DK)
            tail = dot(slopes, more, tail)
    store_rows(dq, row, count, column, limit, main * scale, QUERIES, MAIN, DK)
    if TAIL:
        store_rows(dq, row, count, column + MAIN, limit, tail * scale, QUERIES, TAIL, DK)


@tuned_blocks(BACKWARD, "DK", "DV")
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
    tokens,
    keys,
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
    for start in range(0, LENGTH if INTERPRETER else tokens, QUERIES):
        query, left = sample * tokens + start, tokens - start
        inside = tl.arange(0, QUERIES) < left
        log_sum = tl.load(log_sums + query + tl.arange(0, QUERIES), mask=inside, other=0.0)[None, :]
        delta = tl.load(deltas + query + tl.arange(0, QUERIES), mask=inside, other=0.0)[None, :]
        scores = products(k, q, row, count, query, left, KEYS, QUERIES, DK, K_CHUNK) * scale
        slopes = products(v, gradient, row, count, query, left, KEYS, QUERIES, DV, V_CHUNK)
        weights = tl.where(inside[None, :], tl.exp(scores - log_sum), 0.0)
        slopes = (weights * (slopes - delta)).to(q.dtype.element_ty)
        weights = weights.to(q.dtype.element_ty)
        more = load_rows(q, query, left, k_column, k_limit, QUERIES, K_MAIN, DK)
        k_main = dot(slopes, more, k_main)
        more = load_rows(gradient, query, left, v_column, v_limit, QUERIES, V_MAIN, DV)
        v_main = dot(weights, more, v_main)
        if K_TAIL:
            more = load_rows(q, query, left, k_column + K_MAIN, k_limit, QUERIES, K_TAIL, DK)
            k_tail = dot(slopes, more, k_tail)
        if V_TAIL:
            more = load_rows(gradient, query, left, v_column + V_MAIN, v_limit, QUERIES, V_TAIL, DV)
            v_tail = dot(weights, more, v_tail)
    store_rows(dk, row, count, k_column, k_limit, k_main * scale, KEYS, K_MAIN, DK)
    store_rows(dv, row, count, v_column, v_limit, v_main, KEYS, V_MAIN, DV)
    if K_TAIL:
        store_rows(dk, row, count, k_column + K_MAIN, k_limit, k_tail * scale, KEYS, K_TAIL, DK)
    if V_TAIL:
        store_rows(dv, row, count, v_column + V_MAIN, v_limit, v_tail, KEYS, V_TAIL, DV)


# For each pass: the kernel, its configurations, the widths whose columns programs share, the name of a block's rows,
# and the tensors it reads and writes beside q, k, v and log_sums.
_PASSES: dict[str, tuple[Any, list[triton.Config], dict[str, str], str, tuple[str, ...]]] = {
    "forward": (_forward, FORWARD, {"": "DV"}, "QUERIES", ("y",)),
    "backward_queries": (_backward_queries, BACKWARD, {"": "DK"}, "QUERIES", ("gradient", "dq")),
    "backward_keys": (_backward_keys, BACKWARD, {"K_": "DK", "V_": "DV"}, "KEYS", ("gradient", "dk", "dv")),
}


def configured(step: str, dtype: str, key_width: int, width: int) -> list[Variant]:
    """Return a pass in every configuration that fits the widths, the largest blocks last."""
    function, configurations, owned, rows, others = _PASSES[step]
    pointer, ends = FLOATS[dtype], {"DK": key_width, "DV": width}
    chunks = {"CHUNK": chunk(key_width)}
    types = dict.fromkeys(("q", "k", "v"), pointer) | {"log_sums": FP32} | dict.fromkeys(others, pointer)
    if step != "forward":
        chunks = {"K_CHUNK": chunk(key_width), "V_CHUNK": chunk(width)}
        types |= {"deltas": FP32}
    found = []
    for config in fitting_blocks(configurations, [ends[name] for name in owned.values()], 4 if pointer == FP32 else 2):
        chosen = ends | chunks | config.kwargs
        for prefix, name in owned.items():
            chosen |= {argument: value(chosen) for argument, value in widths(prefix, name).items()}
        blocks = max(column_blocks(ends[name], chosen) for name in owned.values())
        grid = ((("samples",), ("tokens" if rows == "QUERIES" else "keys", rows)), ((blocks,),))
        numbers = {"scale": "fp32", "tokens": "i32", "keys": "i32"}
        variant = Variant(
            f"rearrange_{step}_{dtype}_{key_width}_{width}", function, types | numbers, chosen, grid, tuple(types),
            warps=config.num_warps, stages=config.num_stages, fp_fusion=True,
        )  # fmt: skip
        found.append(variant)
    return found


def variants() -> Iterator[Variant]:
    """Yield the variants to build ahead of time: rearrange_PASS_DTYPE_DK_DV.

    The passes are forward, deltas (for Dv alone), backward_queries and backward_keys. All pointers are multiples of
    16 bytes.
    """
    for dtype, (key_width, width), step in product(FLOATS, _WIDTHS, _PASSES):
        yield configured(step, dtype, key_width, width)[-1]
    for (dtype, pointer), width in product(FLOATS.items(), sorted({width for _, width in _WIDTHS})):
        types = {"gradient": pointer, "y": pointer, "deltas": FP32}
        constants = {"DV": width, "COLUMNS": triton.next_power_of_2(width)}
        name = f"rearrange_deltas_{dtype}_{width}"
        yield Variant(name, _deltas, types, constants, ((("rows",),),), ("gradient", "y"), fp_fusion=True)
