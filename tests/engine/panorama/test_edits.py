"""Latent fields with another latent in a region."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zellige.engine.panorama.edits import EditedLatents, bump_of, changed_by, overlap
from zellige.engine.panorama.latents import AnchoredLatents, StillLatents, fixed_latent
from zellige.engine.panorama.lattice import Lattice
from zellige.engine.panorama.maps import MapLatents
from zellige.engine.panorama.scene import Inside, Region, Scene
from zellige.errors import SizeError

from .test_latents import largest_gap_to_uniform
from .test_maps import BORDERS, region_map

LENGTH, PATCH = 8, 10
LATTICES = {name: Lattice(name, 5, 6) for name in ("plane", "cylinder", "torus")}
lattices = pytest.mark.parametrize("name", LATTICES)


def scene(name: str, turns: tuple[int, int] = (1, 1), inside: Inside | None = None) -> Scene:
    still = StillLatents(fixed_latent(0, 0, LENGTH))
    return Scene(LATTICES[name], PATCH, 5 * turns[0], 6 * turns[1], still, moving=(True, True), inside=inside)


def places(made: Scene, count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.uniform(-0.5, made.rows - 0.5, count), random.uniform(-0.5, made.columns - 0.5, count)


@lattices
@pytest.mark.parametrize("soften", [0, 7.5])
def test_inside_is_the_new_latent_and_far_outside_the_old_one_to_the_bit(name: str, soften: float) -> None:
    made, new, region = scene(name), fixed_latent(9, 0, LENGTH), Region(12, 21, 20, 15)
    old = AnchoredLatents(3, LENGTH, (1, 2), (5, 3))
    rows, columns = places(made)
    field = EditedLatents(old, new, bump_of(made, region, soften))(rows, columns)
    y, x = (rows + 0.5) * PATCH, (columns + 0.5) * PATCH
    away = np.maximum(np.maximum(12 - y, y - 32), np.maximum(21 - x, x - 36))
    assert (field[away <= 0] == new).all() and (away <= 0).any()
    assert (field[away > soften] == old(rows, columns)[away > soften]).all()
    between = (away > 0) & (away < soften)
    assert (field[between] != new).any(axis=1).all() and between.any() == (soften > 0)


def test_the_weight_falls_as_a_cosine() -> None:
    bump = bump_of(scene("plane"), Region(10, 20, 20, 20), 8)
    x = np.array([16.0, 18.0, 12.0, 11.9, 44.0, 30.0])
    weights = bump(np.full(6, 1.5), x / PATCH - 0.5)
    half = math.cos(math.pi / 4) ** 2
    np.testing.assert_allclose(weights, [half, math.cos(math.pi / 8) ** 2, 0, 0, half, 1], atol=1e-12)
    assert weights[2] == weights[3] == 0


@pytest.mark.parametrize("name", ["cylinder", "torus"])
@given(start=st.integers(-59, 59), width=st.integers(1, 60), soften=st.floats(0, 60), shift=st.integers(0, 5))
def test_a_region_goes_round_the_closure(name: str, start: int, width: int, soften: float, shift: int) -> None:
    made, columns = scene(name), np.arange(-0.5, 5.5, 0.25)
    rows = np.full(len(columns), 1.5)
    here = bump_of(made, Region(0, start, 50, width), soften)(rows, columns)
    moved = bump_of(made, Region(0, (start + shift * PATCH) % 60, 50, width), soften)(rows, (columns + shift) % 6)
    np.testing.assert_allclose(here, moved, atol=1e-9)


BASES = {
    "still": lambda seed: StillLatents(fixed_latent(seed, 0, 100)),
    "anchors": lambda seed: AnchoredLatents(seed, 100, (1, 2), (5, 3)),
    "map": lambda seed: MapLatents(region_map(BORDERS, seed, 100), LATTICES["torus"], (1, 2), seed, soften=3, vary=0.4),
}


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("seeds", [(1,), (1, 2), (1, 2, 1), (0,), (1, 0)], ids=str)
def test_latents_of_a_border_are_uniform_over_seeds(base: str, seeds: tuple[int, ...]) -> None:
    """Also if a latent comes again that is there already: the seed 0 is that of the picture."""
    made, values = scene("torus", (1, 2)), []
    at = np.array([2.1, 1.4, 2.0]), np.array([3.3, 4.2, 7.6])
    for draw in range(0, 400, 4):
        field = BASES[base](draw)
        for k, seed in enumerate(seeds):
            field = EditedLatents(
                field, fixed_latent(draw + seed, 0, 100), bump_of(made, Region(22 - k, 20, 9, 20), 40)
            )
        values.append(field(*at))
    for place in np.stack(values, axis=1):
        joined = place.ravel()
        assert abs(joined.var() - 1 / 3) < 4 * math.sqrt(4 / 45 / len(joined))
        assert largest_gap_to_uniform(joined) < 1.95 / math.sqrt(len(joined))


def test_the_latent_that_was_there_changes_nothing() -> None:
    made, old = scene("cylinder"), StillLatents(fixed_latent(5, 0, LENGTH))
    rows, columns = places(made)
    field = EditedLatents(old, fixed_latent(5, 0, LENGTH), bump_of(made, Region(10, 10, 10, 10), 20))
    assert (field(rows, columns) == old(rows, columns)).all()


@lattices
def test_no_step_is_larger_than_the_softening_allows(name: str) -> None:
    made, soften, step = scene(name), 12.0, 1e-3
    field = EditedLatents(
        StillLatents(fixed_latent(1, 0, LENGTH)),
        fixed_latent(2, 0, LENGTH),
        bump_of(made, Region(18, 19, 9, 14), soften),
    )
    for axis, still in ((0, 2.0), (1, 1.7)):
        along = np.arange(-0.5, (made.rows, made.columns)[axis] - 0.5, step)
        at = [along, np.full(len(along), still)]
        steps = np.abs(np.diff(field(at[axis], at[1 - axis]), axis=0)).max()
        assert 0 < steps < 0.8 * 2 * 4 * 2 * math.pi / 2 * step * PATCH / soften


@lattices
@given(data=st.data())
def test_every_pixel_that_sees_another_latent_is_listed(name: str, data: st.DataObject) -> None:
    inside = data.draw(st.sampled_from([None, Inside(2, 3), Inside(2, 1)]))
    made = scene(name, inside=inside)
    height, width = data.draw(st.integers(1, 50)), data.draw(st.integers(1, 60))
    axes = made.lattice.axes
    top = data.draw(st.integers(-49, 49) if axes[0].cyclic else st.integers(0, 50 - height))
    left = data.draw(st.integers(-59, 59) if axes[1].cyclic else st.integers(0, 60 - width))
    bump = bump_of(made, Region(top, left, height, width), data.draw(st.sampled_from([0.0, 3.5, 20.0])))
    listed = np.zeros((50, 60), int)
    for part in changed_by(made, bump):
        listed[part.top : part.top + part.height, part.left : part.left + part.width] += 1
    assert listed.max() == 1
    seen = np.zeros((50, 60), bool)
    work = made.work(made.whole)
    for row, column, (y, x) in zip(work.rows, work.columns, work.corners, strict=True):
        if inside:
            rows, columns = (inside.places(np.array([first]), 1)[0] for first in (row, column))
        else:
            rows, columns = np.array([row]), np.array([column])
        grid = np.meshgrid(made._held(0, rows), made._held(1, columns))
        if (bump(grid[0].ravel(), grid[1].ravel()) > 0).any():
            seen[max(y, 0) : y + PATCH, max(x, 0) : x + PATCH] = True
    assert not (seen & (listed == 0)).any()


@lattices
def test_what_is_listed_is_near_the_region(name: str) -> None:
    parts = changed_by(scene(name), bump_of(scene(name), Region(20, 25, 5, 5), 4))
    assert parts == [Region(11, 16, 23, 23)]


@pytest.mark.parametrize(
    ("name", "region", "soften", "sentence"),
    [
        ("plane", Region(0, 0, 0, 5), 0, "a region of 5x0 is empty"),
        ("plane", Region(0, 55, 5, 6), 0, "the region 6x5 at (55, 0) reaches outside of the 60x50 picture"),
        ("plane", Region(-1, 0, 5, 5), 0, "reaches outside of the 60x50 picture"),
        ("cylinder", Region(0, 60, 5, 5), 0, "the horizontal axis is cyclic, so a region may go round the closure"),
        ("cylinder", Region(46, 0, 5, 5), 0, "reaches outside"),
        ("torus", Region(0, 0, 51, 5), 0, "the vertical axis is cyclic"),
        ("torus", Region(0, 0, 5, 5), 61, "soften must be from 0 to 60"),
        ("torus", Region(0, 0, 5, 5), math.nan, "soften must be from 0 to 60"),
    ],
)
def test_regions_that_cannot_be_are_refused(name: str, region: Region, soften: float, sentence: str) -> None:
    with pytest.raises(SizeError) as caught:
        bump_of(scene(name), region, soften)
    assert sentence in str(caught.value)


def test_overlaps() -> None:
    assert overlap(Region(0, 0, 5, 5), Region(3, 4, 9, 9)) == Region(3, 4, 2, 1)
    assert overlap(Region(0, 0, 5, 5), Region(5, 0, 9, 9)) is None
