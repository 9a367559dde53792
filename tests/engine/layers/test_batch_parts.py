"""Batches go through wide layers in parts, nearly equal, and nothing changes but where they lie in memory."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from zellige.engine.layers import batch_parts as subject
from zellige.engine.layers.batch_invariance import make_batch_invariant
from zellige.engine.layers.batch_parts import WIDEST_CPU_MAP, joined, part_sizes, parts_of
from zellige.engine.layers.norms import MapNorm
from zellige.engine.systems.onegan.networks import OneGanNetworks
from zellige.kernels import plain_operators

from ..systems.onegan.tiny_onegan import drawn, images, normal, one_thread, tiny, trained

__all__ = ["one_thread"]

COUNTS, WIDEST = st.integers(0, 300), st.integers(1, 2 * WIDEST_CPU_MAP)


def batch(count: int) -> Tensor:
    return torch.empty(count, 1)


@given(COUNTS, WIDEST, st.integers(1, 20), st.integers(1, 8))
def test_parts_are_the_batch(count: int, widest: int, least: int, step: int) -> None:
    sizes = part_sizes(batch(count), widest, False, least, step)
    assert sum(sizes) == count and (not count or min(sizes) > 0)
    assert all(size % step == 0 for size in sizes[:-1])


@given(COUNTS, WIDEST)
def test_parts_are_nearly_equal_and_fit_unless_they_are_single(count: int, widest: int) -> None:
    sizes = part_sizes(batch(count), widest, False)
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= max(WIDEST_CPU_MAP // widest, 1)
    assert len(sizes) == max(-(-count // max(WIDEST_CPU_MAP // widest, 1)), 1)  # no more of them than needed


@given(COUNTS, WIDEST, st.integers(1, 20))
def test_no_part_is_smaller_than_the_least_that_is_allowed(count: int, widest: int, least: int) -> None:
    sizes = part_sizes(batch(count), widest, False, least)
    assert len(sizes) == 1 or min(sizes) >= least
    assert max(sizes) <= max(WIDEST_CPU_MAP // widest, 2 * least - 1)


@given(COUNTS, WIDEST, st.integers(1, 8))
def test_no_part_is_smaller_than_a_step(count: int, widest: int, step: int) -> None:
    sizes = part_sizes(batch(count), widest, False, step=step)
    assert len(sizes) == 1 or min(sizes) >= step
    assert max(sizes) < max(WIDEST_CPU_MAP // widest, step) + 2 * step


def test_a_batch_is_one_part_where_parts_gain_nothing() -> None:
    x, wide = batch(9), 2 * WIDEST_CPU_MAP
    assert part_sizes(x, wide, False) == [1] * 9
    assert part_sizes(x, wide, True) == [9]
    assert part_sizes(x.to("meta"), wide, False) == [9]
    with plain_operators():
        assert part_sizes(x, wide, False) == [9]


def test_a_graph_that_is_written_out_has_one_part_and_any_batch() -> None:
    class Halves(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            sizes = part_sizes(x, 2 * WIDEST_CPU_MAP, False)
            return joined([2 * part for (part,) in parts_of(sizes, x)])

    x = normal(5, 3)
    program = torch.export.export(Halves(), (x,), dynamic_shapes=({0: torch.export.Dim("n")},))
    assert not any(node.target is torch.ops.aten.cat.default for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(normal(8, 3)), 2 * normal(8, 3))
    compiled = torch.compile(Halves(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), 2 * x)


def test_batches_are_split_side_by_side_and_joined_again() -> None:
    x, y = normal(5, 3), normal(5, 2, seed=1)
    made = parts_of([2, 3], x, y)
    assert [(len(a), len(b)) for a, b in made] == [(2, 2), (3, 3)]
    assert torch.equal(joined([a for a, _ in made]), x) and torch.equal(joined([b for _, b in made]), y)


def test_a_single_part_is_not_copied() -> None:
    x = normal(5, 3)
    ((part,),) = parts_of([5], x)
    assert part is x and joined([part]) is x


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_a_onegan_in_small_parts_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    config = tiny()
    networks = trained(OneGanNetworks, config).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for part in networks.modules():
        if isinstance(part, nn.Conv2d | MapNorm):
            part.to(dtype)
    make_batch_invariant(networks)
    codes, seen = drawn(networks, 5), images(config, 5)

    def made() -> dict[str, Any]:
        composites = networks.generate(codes), networks.reconstruct(seen)
        names = ("image", "foreground", "background", "mask")
        return {f"{name} {k}": getattr(composite, name) for k, composite in enumerate(composites) for name in names}

    whole = made()
    for widest in (1, 3 * networks.foreground.widest * dtype.itemsize):
        monkeypatch.setattr(subject, "WIDEST_CPU_MAP", widest)
        small = made()
        assert all(torch.equal(small[name], whole[name]) for name in whole)
