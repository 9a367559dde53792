import math
import tracemalloc
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from zellige.engine.panorama.latents import AnchoredLatents, fixed_latent, to_normal, to_uniform
from zellige.engine.panorama.lattice import Lattice
from zellige.engine.panorama.legend import Entry
from zellige.engine.panorama.maps import MapLatents, RegionMap, read_map
from zellige.errors import DataError, MapError, SizeError

from .test_latents import largest_gap_to_uniform

LENGTH = 8
LATTICES = {
    "plane": Lattice("plane", 5, 6), "cylinder": Lattice("cylinder", 5, 6), "torus": Lattice("torus", 5, 6),
}  # fmt: skip
lattices = pytest.mark.parametrize("name", LATTICES)
Places = tuple[np.ndarray, np.ndarray]
BORDERS = np.array([[0, 0, 1, 1], [0, 2, 2, 1], [0, 2, 0, 1]], np.uint8)


def region_map(regions: np.ndarray, first: int = 0, length: int = LENGTH) -> RegionMap:
    latents = [fixed_latent(first + k, 0, length) for k in range(int(regions.max()) + 1)]
    return RegionMap(regions, tuple(Entry((k, k, k), latent, f"seed {k}") for k, latent in enumerate(latents)))


@cache
def field(name: str, soften: float = 0.0, vary: float = 0.0, across: int = 2) -> MapLatents:
    down = 1 if name != "torus" else 2
    turns = (down, across if name != "plane" else 1)
    return MapLatents(region_map(BORDERS), LATTICES[name], turns, 3, soften=soften, vary=vary)


def places(latents: MapLatents, count: int, seed: int = 0) -> Places:
    random = np.random.default_rng(seed)
    return random.uniform(0, latents.extent[0] - 1, count), random.uniform(0, latents.extent[1] - 1, count)


def shares_by_overlap(latents: MapLatents, regions: np.ndarray, row: float, column: float) -> np.ndarray:
    """The same areas from the overlap of the square with every pixel of the map and of its copies."""
    along = []
    for axis, position in ((0, row), (1, column)):
        size = regions.shape[axis]
        scale = size / latents.extent[axis]
        copies = np.arange(-2, 3) if latents.cyclic[axis] else np.zeros(1)
        begins = np.arange(size) + copies[:, None] * size
        ends = (position + 0.5 - latents.soften / 2) * scale, (position + 0.5 + latents.soften / 2) * scale
        along.append(np.clip(np.minimum(begins + 1, ends[1]) - np.maximum(begins, ends[0]), 0, None).sum(axis=0))
    areas = np.outer(*along)
    return np.array([areas[regions == k].sum() for k in range(len(latents.latents))])


@pytest.mark.parametrize("place", [(1.3, 2.45), (2.9, 5.6), (3.2, 9.1)])
@pytest.mark.parametrize("vary", [0.0, 0.4])
def test_latents_of_a_border_are_uniform_over_seeds(place: tuple[float, float], vary: float) -> None:
    at = np.array(place[:1]), np.array(place[1:])
    values = []
    for seed in range(100):
        regions = region_map(BORDERS, first=3 * seed, length=100)
        latents = MapLatents(regions, LATTICES["torus"], (1, 2), seed, soften=3, vary=vary)
        assert (latents.weights(*at) > 0.05).sum() >= 2
        values.append(latents(*at).ravel())
    joined = np.concatenate(values)
    assert abs(joined.mean()) < 4 * math.sqrt(1 / 3 / len(joined))
    assert abs(joined.var() - 1 / 3) < 4 * math.sqrt(4 / 45 / len(joined))
    assert largest_gap_to_uniform(joined) < 1.95 / math.sqrt(len(joined))


@lattices
def test_inside_a_region_its_latent_is_exact(name: str) -> None:
    latents = field(name, soften=0.5)
    scale = latents.extent[0] / 3, latents.extent[1] / 4
    for row, column, region in [(0.5, 1, 0), (1.5, 2, 2), (0.5, 3, 1)]:
        found = latents(np.array([row * scale[0] - 0.5]), np.array([column * scale[1] - 0.5]))
        assert (found[0] == fixed_latent(region, 0, LENGTH)).all()


@lattices
def test_without_softening_the_centre_of_a_patch_decides(name: str) -> None:
    latents = field(name)
    rows, columns = places(latents, 50)
    pixels = ((rows + 0.5) * 3 / latents.extent[0]).astype(int), ((columns + 0.5) * 4 / latents.extent[1]).astype(int)
    expected = np.stack([fixed_latent(int(region), 0, LENGTH) for region in BORDERS[pixels]])
    assert (latents(rows, columns) == expected).all()


@lattices
@given(data=st.data())
def test_shares_are_overlaps_with_the_map(name: str, data: st.DataObject) -> None:
    shape = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 7))
    regions = np.random.default_rng(data.draw(st.integers(0, 2**32))).integers(0, 3, shape).astype(np.uint8)
    regions.flat[0] = 2
    regions = np.unique(regions, return_inverse=True)[1].reshape(shape).astype(np.uint8)
    lattice = LATTICES[name]
    turns = (1 + lattice.axes[0].cyclic, 1 + lattice.axes[1].cyclic)
    latents = MapLatents(region_map(regions), lattice, turns, soften=data.draw(st.floats(0.01, 6)))
    row, column = (data.draw(st.floats(0, extent - 0.5)) for extent in latents.extent)
    order = [int(np.flatnonzero((latents.latents == fixed_latent(k, 0, LENGTH)).all(axis=1))[0])
             for k in range(int(regions.max()) + 1)]  # fmt: skip
    found = latents.weights(np.array([row]), np.array([column]))[order, 0]
    np.testing.assert_allclose(found, shares_by_overlap(latents, regions, row, column), rtol=1e-6, atol=1e-9)


@lattices
@pytest.mark.parametrize("soften", [0.5, 2.0, 4.0])
def test_no_step_is_larger_than_the_softening_allows(name: str, soften: float) -> None:
    latents, step = field(name, soften), 1e-3
    for axis in (0, 1):
        along = np.arange(0, latents.extent[axis] - 1, step)
        for still in np.linspace(0, latents.extent[1 - axis] - 1, 7):
            at = [along, np.full(len(along), still)]
            steps = np.abs(np.diff(latents(at[axis], at[1 - axis]), axis=0)).max()
            # A step moves a share of 2 step / soften, the norm of three shares is at least 3^(-1/2), g stays below 4,
            # and z's slope is at most 0.8.
            assert steps < 0.8 * 2 * 4 * math.sqrt(3) * 2 * step / soften


@lattices
@pytest.mark.parametrize(("soften", "vary"), [(0, 0), (2.5, 0), (2.5, 0.3)])
@given(data=st.data())
def test_order_and_grouping_of_queries_do_not_matter(
    name: str, soften: float, vary: float, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, 40))
    latents = field(name, soften, vary)
    rows, columns = places(latents, count, seed=data.draw(st.integers(0, 2**32)))
    whole = latents(rows, columns)
    order = np.array(data.draw(st.permutations(range(count))))
    cut = data.draw(st.integers(0, count))
    for group in (order[:cut], order[cut:]):
        if len(group):
            assert (latents(rows[group], columns[group]) == whole[group]).all()


def test_the_map_goes_round_where_the_axis_is_cyclic() -> None:
    latents = field("torus", 3.0)
    rows, columns = places(latents, 30)
    height, width = latents.extent
    np.testing.assert_allclose(latents(rows + height, columns - width), latents(rows, columns), atol=1e-12)
    # Column 0 of the map is all region 0 and the last is all region 1: half way round they weigh alike.
    shares = latents.weights(np.array([2.0]), np.array([-0.5]))
    assert shares[:, 0].tolist().count(0) == 1 and len(set(np.round(shares[:, 0], 9))) == 2


def test_the_square_ends_at_an_open_border() -> None:
    latents = field("plane", 3.0)
    edge = latents.weights(np.array([0.0]), np.array([0.0]))
    np.testing.assert_allclose(edge.sum(), 2.0 * 3 / 5 * 2.0 * 4 / 6)


def test_colours_with_one_latent_are_one_region() -> None:
    same = replace(
        region_map(BORDERS), legend=tuple(Entry((k, 0, 0), fixed_latent(7, 0, LENGTH), "") for k in range(3))
    )
    latents = MapLatents(same, LATTICES["torus"], (2, 2), soften=2)
    assert latents.moving == (False, False)
    assert (latents(*places(latents, 20)) == fixed_latent(7, 0, LENGTH)).all()


@pytest.mark.parametrize(
    ("regions", "turns", "vary", "moving"),
    [
        ([[0]], (3, 3), 0, (False, False)),
        ([[0]], (3, 1), 0.3, (True, False)),
        ([[0, 1]], (3, 1), 0, (False, True)),
        ([[0], [1]], (1, 3), 0, (True, False)),
        ([[0], [1]], (1, 3), 1, (True, True)),
        ([[0, 1], [1, 0]], (1, 1), 0.3, (True, True)),
    ],
)
def test_the_latent_moves_where_the_map_or_the_path_does(
    regions: list[list[int]], turns: tuple[int, int], vary: float, moving: tuple[bool, bool]
) -> None:
    painted = region_map(np.array(regions, np.uint8))
    assert MapLatents(painted, LATTICES["torus"], turns, vary=vary).moving == moving


def test_to_vary_wholly_is_the_path_of_the_seed() -> None:
    latents = field("torus", vary=1.0)
    at = places(latents, 20)
    path = AnchoredLatents(3, LENGTH, (2, 2), (5, 6))
    np.testing.assert_allclose(latents(*at), path(*at), atol=1e-12)


def test_ends_of_the_range_have_finite_normal_numbers() -> None:
    ends = np.array([-1.0, -0.5, 0.0, 1.0])
    assert np.abs(to_normal(ends)).max() < 9
    np.testing.assert_allclose(to_uniform(to_normal(ends)), ends, atol=1e-15)


def test_a_million_turns_need_no_more_memory_than_a_few() -> None:
    tracemalloc.start()
    try:
        latents = MapLatents(region_map(BORDERS), LATTICES["cylinder"], (1, 1_000_000), soften=4)
        first = tracemalloc.get_traced_memory()[0]
        for start in range(0, 60_000, 6000):
            latents(np.zeros(1200), start * 100 + np.arange(1200) / 2)
        assert tracemalloc.get_traced_memory()[0] - first < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("soften", [-1, 13, math.nan, math.inf])
def test_a_softening_beyond_the_picture_is_refused(soften: float) -> None:
    with pytest.raises(SizeError, match="borders can be softened over 0 to 12 patches"):
        MapLatents(region_map(BORDERS), LATTICES["torus"], (2, 2), soften=soften)


@pytest.mark.parametrize("vary", [-0.1, 1.1, math.nan])
def test_a_share_beyond_one_is_refused(vary: float) -> None:
    with pytest.raises(SizeError, match="the latent can vary by a share from 0 to 1"):
        MapLatents(region_map(BORDERS), LATTICES["torus"], (2, 2), vary=vary)


SEA, SAND = (0x20, 0x60, 0xC0), (0xD0, 0xC0, 0x60)


@pytest.fixture
def legend(tmp_path: Path) -> Path:
    path = tmp_path / "map.toml"
    path.write_text('["#2060c0"]\nseed = 7\n["#d0c060"]\nseed = 8\n["#708090"]\nseed = 9\n')
    return path


def shore(tmp_path: Path, *, between: tuple[int, int, int] | None = None) -> Path:
    pixels = np.full((8, 10, 3), SEA, np.uint8)
    pixels[:, 5:] = SAND
    if between:
        pixels[:, 5] = between
    path = tmp_path / "map.png"
    Image.fromarray(pixels).save(path)
    return path


def test_pixels_become_regions_and_shares(tmp_path: Path, legend: Path) -> None:
    found = read_map(shore(tmp_path), legend, LENGTH)
    assert (found.regions == [[0] * 5 + [1] * 5] * 8).all()
    assert found.report() == {
        "regions": [
            {"colour": "#2060c0", "latent": "seed 7", "share": 0.5},
            {"colour": "#d0c060", "latent": "seed 8", "share": 0.5},
            {"colour": "#708090", "latent": "seed 9", "share": 0.0},
        ],
        "map_pixels_moved": 0,
    }


def test_an_anti_aliased_border_gets_a_colour_from_beside_it(tmp_path: Path, legend: Path) -> None:
    # Between sea and sand lies #708090 nearly, which the map does not have elsewhere; it is a colour of its own.
    found = read_map(shore(tmp_path, between=(0xA8, 0xA0, 0x80)), legend, LENGTH)
    assert (found.regions == [[0] * 5 + [1] * 5] * 8).all()
    assert found.moved == 8


def test_colours_of_a_lossy_file_are_taken_to_the_nearest(tmp_path: Path, legend: Path) -> None:
    found = read_map(shore(tmp_path, between=(SAND[0] - 18, SAND[1] + 18, SAND[2] - 18)), legend, LENGTH)
    assert (found.regions[:, 5] == 1).all() and found.moved == 8


def test_a_forgotten_colour_is_refused_with_its_pixels(tmp_path: Path, legend: Path) -> None:
    path = shore(tmp_path, between=(255, 0, 0))
    with pytest.raises(MapError) as caught:
        read_map(path, legend, LENGTH)
    assert str(caught.value) == (
        f"the map {path} has 8 pixels of #ff0000, far from all colours of {legend}: #2060c0, #d0c060, #708090; "
        "repaint the map, or give the colour a latent"
    )


def test_a_forgotten_region_between_two_colours_is_refused(tmp_path: Path, legend: Path) -> None:
    pixels = np.full((20, 30, 3), SEA, np.uint8)
    pixels[:, 20:] = SAND
    pixels[:, 10:20] = (0xA8, 0xA0, 0x80)
    Image.fromarray(pixels).save(tmp_path / "map.png")
    with pytest.raises(MapError, match=r"has 200 pixels of #a8a080, far from all"):
        read_map(tmp_path / "map.png", legend, LENGTH)


def test_a_map_of_one_pixel_is_a_map(tmp_path: Path, legend: Path) -> None:
    Image.new("RGB", (1, 1), SAND).save(tmp_path / "dot.png")
    found = read_map(tmp_path / "dot.png", legend, LENGTH)
    assert found.regions.tolist() == [[1]]


def test_a_large_map_is_refused(tmp_path: Path, legend: Path) -> None:
    Image.new("RGB", (1025, 1024), SAND).save(tmp_path / "large.png")
    with pytest.raises(MapError, match="has 1025x1024 pixels, and at most 1,048,576 are read; make it smaller"):
        read_map(tmp_path / "large.png", legend, LENGTH)


def test_a_map_that_is_no_picture_is_refused(tmp_path: Path, legend: Path) -> None:
    with pytest.raises(DataError, match="and not an image"):
        read_map(legend, legend, LENGTH)
    with pytest.raises(DataError, match="there is no image file"):
        read_map(tmp_path / "gone.png", legend, LENGTH)


def test_the_map_of_the_documents_has_its_four_regions() -> None:
    docs = Path(__file__).parents[3] / "docs"
    found = read_map(docs / "terrain-map.png", docs / "terrain-map.toml", LENGTH).report()
    assert [region["latent"] for region in found["regions"]] == ["seed 15", "seed 78", "seed 13", "seed 24"]
    assert all(region["share"] > 0.1 for region in found["regions"]) and found["map_pixels_moved"] == 0
