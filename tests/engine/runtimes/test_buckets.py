import pytest
from hypothesis import given
from hypothesis import strategies as st

from zellige.engine.runtimes.buckets import BUCKETS, LAUNCH, Batch, Usage, checked_buckets, cover, of_patches, split
from zellige.errors import SizeError

counts = st.integers(0, 300)
ladders = st.sets(st.integers(1, 64), min_size=1, max_size=5).map(lambda sizes: tuple(sorted(sizes)))


def sizes(batches: list[Batch]) -> list[int]:
    return [batch.size for batch in batches]


def cost(batches: list[Batch]) -> int:
    return sum(batch.size + LAUNCH for batch in batches)


@given(counts, ladders)
def test_every_image_is_in_one_batch_and_in_order(count: int, buckets: tuple[int, ...]) -> None:
    for batches in (split(count, buckets), cover(count, buckets)):
        assert [k for batch in batches for k in range(batch.start, batch.start + batch.count)] == list(range(count))


@given(counts, ladders)
def test_a_split_pads_nothing_and_has_one_smaller_batch_at_most(count: int, buckets: tuple[int, ...]) -> None:
    batches = split(count, buckets)
    assert sum(batch.padding for batch in batches) == 0
    assert all(size == buckets[-1] for size in sizes(batches)[:-1])
    assert all(1 <= size <= buckets[-1] for size in sizes(batches))


@given(counts, ladders)
def test_a_cover_runs_buckets_alone_from_large_to_small(count: int, buckets: tuple[int, ...]) -> None:
    batches = cover(count, buckets)
    assert set(sizes(batches)) <= set(buckets)
    assert sizes(batches) == sorted(sizes(batches), reverse=True)


@given(counts, ladders)
def test_a_cover_pads_the_last_batch_alone_and_never_by_a_whole_one(count: int, buckets: tuple[int, ...]) -> None:
    batches = cover(count, buckets)
    assert all(batch.padding == 0 for batch in batches[:-1])
    assert all(0 <= batch.padding < batch.size for batch in batches)


@given(counts, ladders)
def test_padding_costs_no_more_than_the_batches_that_it_saves(count: int, buckets: tuple[int, ...]) -> None:
    with_one = (1, *(size for size in buckets if size > 1))
    exact, left = [], count
    for size in reversed(with_one):
        exact += [Batch(0, size, size)] * (left // size)
        left %= size
    assert cost(cover(count, with_one)) <= cost(exact)


@given(counts, ladders)
def test_without_a_price_of_a_batch_nothing_is_padded_that_need_not_be(count: int, buckets: tuple[int, ...]) -> None:
    batches = cover(count, (1, *(size for size in buckets if size > 1)), launch=0)
    assert sum(batch.padding for batch in batches) == 0


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, []), (1, [1]), (2, [1, 1]), (3, [8]), (8, [8]), (9, [8, 1]), (20, [8, 8, 8]), (25, [32]), (31, [32]),
     (42, [32, 8, 1, 1]), (64, [32, 32]), (65, [32, 32, 1])],
)  # fmt: skip
def test_the_default_buckets_cover(count: int, expected: list[int]) -> None:
    assert sizes(cover(count, BUCKETS)) == expected


def test_buckets_are_sorted_and_each_once() -> None:
    assert checked_buckets([8, 1, 8]) == (1, 8)


@pytest.mark.parametrize("buckets", [[], [0, 8]])
def test_no_buckets_and_empty_buckets_are_refused(buckets: list[int]) -> None:
    with pytest.raises(SizeError, match="cannot be run; give one size or more, each 1 or more$"):
        checked_buckets(buckets)


def test_usage_counts_what_was_run_and_thrown_away() -> None:
    usage = Usage()
    for batch in (*cover(42, BUCKETS), *cover(31, BUCKETS)):
        usage.add(batch)
    assert usage.row() == {"images": 73, "padding": 1, "batches": {"1": 2, "8": 1, "32": 2}, "graphs": []}
    usage.eager = "the network cannot be captured"
    assert usage.row()["eager"] == usage.eager


@pytest.mark.parametrize(("area", "sizes"), [(1, (8, 32, 128)), (6, (2, 6, 21)), (12, (1, 3, 10)), (500, (1,))])
def test_batches_of_patches_hold_as_many_whatever_the_block(area: int, sizes: tuple[int, ...]) -> None:
    assert of_patches(area) == sizes
