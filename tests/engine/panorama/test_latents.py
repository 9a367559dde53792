import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zellige.engine.panorama.latents import AnchoredLatents, fixed_latent
from zellige.errors import SizeError

LENGTH = 8
# Turns along (rows, columns), and micro patches of one turn.
PATHS = {"horizontal": ((1, 5), (4, 6)), "vertical": ((3, 1), (4, 6)), "both": ((2, 3), (4, 6))}
paths = pytest.mark.parametrize("name", PATHS)


def field(name: str, seed: int = 0) -> AnchoredLatents:
    turns, patches = PATHS[name]
    return AnchoredLatents(seed, LENGTH, turns, patches)


def extent(name: str) -> tuple[int, int]:
    turns, patches = PATHS[name]
    return turns[0] * patches[0], turns[1] * patches[1]


def places(name: str, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random, (height, width) = np.random.default_rng(seed), extent(name)
    return random.uniform(0, height, count), random.uniform(0, width, count)


def largest_gap_to_uniform(values: np.ndarray) -> float:
    """The Kolmogorov-Smirnov statistic against the uniform distribution on [-1, 1]."""
    share = (np.sort(values) + 1) / 2
    steps = np.arange(len(values) + 1) / len(values)
    return float(max((steps[1:] - share).max(), (share - steps[:-1]).max()))


def anchor(seed: int, row: int, column: int) -> np.ndarray:
    gauss = np.random.default_rng((seed, 1, row, column)).standard_normal(LENGTH)
    return np.array([math.erf(value / math.sqrt(2)) for value in gauss])


@paths
@pytest.mark.parametrize("place", [0, 1, 2])
def test_every_point_is_uniform_over_seeds(name: str, place: int) -> None:
    rows, columns = places(name, 3)
    at = rows[place : place + 1], columns[place : place + 1]
    fields = (AnchoredLatents(seed, 100, *PATHS[name]) for seed in range(100))
    values = np.concatenate([latents(*at).ravel() for latents in fields])
    # 1.95 / sqrt(n) is exceeded once in a thousand times.
    assert largest_gap_to_uniform(values) < 1.95 / math.sqrt(len(values))


@paths
def test_the_path_closes(name: str) -> None:
    (height, width), latents = extent(name), field(name)
    rows, columns = places(name, 20)
    here = latents(rows, columns)
    np.testing.assert_allclose(latents(rows + height, columns), here, atol=1e-12)
    np.testing.assert_allclose(latents(rows, columns - width), here, atol=1e-12)
    origin = latents(np.zeros(1), np.zeros(1))
    assert (latents(np.full(1, float(height)), np.full(1, float(width))) == origin).all()


@paths
def test_the_path_is_continuous(name: str) -> None:
    (height, width), latents = extent(name), field(name)
    step = 1e-3
    for rows, columns in [
        (np.arange(-1, height + 1, step), np.full(int((height + 2) / step), 0.3)),
        (np.full(int((width + 2) / step), 0.7), np.arange(-1, width + 1, step)),
    ]:
        count = min(len(rows), len(columns))
        jumps = np.abs(np.diff(latents(rows[:count], columns[:count]), axis=0)).max()
        # A quarter arc over one turn of 4 patches or more, between anchors well below 6; z's slope is at most 0.8.
        assert jumps < 0.8 * math.sqrt(2) * 6 * math.pi / 2 * step / 4


@paths
def test_anchors_are_hit_exactly(name: str) -> None:
    (turns, patches), latents = PATHS[name], field(name, seed=7)
    for row in range(turns[0]):
        for column in range(turns[1]):
            at = np.array([float(row * patches[0])]), np.array([float(column * patches[1])])
            np.testing.assert_allclose(latents(*at)[0], anchor(7, row, column), rtol=1e-14)


def test_halfway_two_anchors_weigh_alike() -> None:
    gauss = [np.random.default_rng((7, 1, 0, column)).standard_normal(LENGTH) for column in (4, 0)]
    mean = sum(gauss) / math.sqrt(2)
    z = [math.erf(value / math.sqrt(2)) for value in mean]
    np.testing.assert_allclose(field("horizontal", seed=7)(np.zeros(1), np.array([27.0]))[0], z, rtol=1e-12)


def test_an_axis_of_one_turn_stands_still() -> None:
    rows = np.linspace(0, 4, 9)
    values = field("horizontal")(rows, np.full(9, 7.3))
    assert (values == values[0]).all()


@paths
@given(data=st.data())
def test_order_and_grouping_of_queries_do_not_matter(name: str, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 40))
    rows, columns = places(name, count, seed=data.draw(st.integers(0, 2**32)))
    order = np.array(data.draw(st.permutations(range(count))))
    cut = data.draw(st.integers(0, count))
    whole, again = field(name)(rows, columns), field(name)
    for group in (order[:cut], order[cut:]):
        if len(group):
            assert (again(rows[group], columns[group]) == whole[group]).all()


def test_a_million_turns_need_no_more_memory_than_a_few() -> None:
    tracemalloc.start()
    try:
        latents = AnchoredLatents(0, LENGTH, (1, 1_000_000), (4, 6))
        first = tracemalloc.get_traced_memory()[0]
        for start in range(0, 60_000, 600):  # 10,000 turns, more than twice what is remembered
            latents(np.zeros(1200), start * 100 + np.arange(1200) / 2)
        remembered = tracemalloc.get_traced_memory()[0] - first
    finally:
        tracemalloc.stop()
    assert remembered < 4 * 2**20
    assert np.isfinite(latents(np.zeros(1), np.array([5_999_999.5]))).all()


def test_another_seed_is_another_path() -> None:
    at = places("both", 5)
    assert not np.isclose(field("both", 0)(*at), field("both", 1)(*at)).any()


@given(seed=st.integers(0, 2**64), index=st.integers(0, 2**32))
def test_a_fixed_latent_is_the_same_whatever_else_is_drawn(seed: int, index: int) -> None:
    alone = fixed_latent(seed, index, LENGTH)
    fixed_latent(seed, index + 1, LENGTH)
    assert (fixed_latent(seed, index, LENGTH) == alone).all()
    assert ((alone >= -1) & (alone <= 1)).all()
    assert (fixed_latent(seed, index + 1, LENGTH) != alone).any()


def test_fixed_latents_are_uniform() -> None:
    values = np.concatenate([fixed_latent(3, index, 100) for index in range(100)])
    assert largest_gap_to_uniform(values) < 1.95 / 100


def test_seeds_and_image_numbers_start_at_zero() -> None:
    with pytest.raises(SizeError, match="the seed must be 0 or more, not -1"):
        fixed_latent(-1, 0, LENGTH)
    with pytest.raises(SizeError, match="there is no image -2"):
        fixed_latent(0, -2, LENGTH)
    with pytest.raises(SizeError, match="the seed must be 0 or more, not -1"):
        AnchoredLatents(-1, LENGTH, (1, 2), (4, 4))
