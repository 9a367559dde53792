import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from zellige.engine.panorama.lattice import Axis, Lattice, Topology
from zellige.errors import LatticeError

THIRD = 1 / 3
ROOT = math.sqrt(3) / 2
TURN = np.array(  # columns 0 to 11 of a panorama: cosine and sine of -180, -150, ... degrees
    [[-1, 0], [-ROOT, -0.5], [-0.5, -ROOT], [0, -1], [0.5, -ROOT], [ROOT, -0.5],
     [1, 0], [ROOT, 0.5], [0.5, ROOT], [0, 1], [-0.5, ROOT], [-ROOT, 0.5]]
)  # fmt: skip

# Image side F, macro patch K and micro patch P in pixels along the open axes of the eleven published configurations.
PUBLISHED = {
    "celeba-64": (64, 32, 16),
    "celeba-128": (128, 64, 32),
    "celeba-128-guided": (128, 64, 32),
    "celeba-128-n4": (128, 64, 16),
    "celeba-128-n8": (128, 64, 8),
    "celeba-128-n16": (128, 64, 4),
    "celeba-hq-1024": (1024, 512, 256),
    "lsun-64": (64, 32, 16),
    "lsun-256": (256, 128, 64),
    "lsun-256-beyond": (256, 128, 64),
    "matterport, vertical": (256, 128, 64),
}


def micro(lattice: Lattice, **options: int) -> np.ndarray:
    cells = lattice.cells(**options)
    return lattice.micro(cells[:, 0], cells[:, 1])


def macro(lattice: Lattice, **options: int) -> np.ndarray:
    cells = lattice.macro_cells(**options)
    return lattice.macro(cells[:, 0], cells[:, 1])


def distinct(coordinates: np.ndarray) -> int:
    return len(np.unique(coordinates.round(9), axis=0))


@st.composite
def lattices(draw: st.DrawFn) -> Lattice:
    topology: Topology = draw(st.sampled_from(["plane", "cylinder", "torus"]))
    span = draw(st.integers(2, 5))
    rows, columns = (
        draw(st.integers(span + (not cyclic), 40)) for cyclic in (topology == "torus", topology != "plane")
    )
    return Lattice(topology, rows, columns, span)


class TestOpenAxis:
    @pytest.mark.parametrize(
        ("patches", "span", "expected"),
        [(4, 2, [-1, -THIRD, THIRD, 1]), (8, 4, [-1 + k * 2 / 7 for k in range(8)])],
    )
    def test_micro_coordinates_of_the_paper(self, patches: int, span: int, expected: list[float]) -> None:
        np.testing.assert_allclose(Axis(patches, span, False).micro(range(patches))[:, 0], expected, atol=1e-15)

    @pytest.mark.parametrize(
        ("patches", "span", "expected"), [(4, 2, [-1, 0, 1]), (8, 4, [-1, -0.5, 0, 0.5, 1]), (3, 2, [-1, 1])]
    )
    def test_macro_coordinates_of_the_paper(self, patches: int, span: int, expected: list[float]) -> None:
        axis = Axis(patches, span, False)
        assert axis.macro(range(axis.macro_positions))[:, 0].tolist() == expected

    @pytest.mark.parametrize(
        ("position", "macro_coordinate", "micro_coordinates"),
        [(0, -1, (-1, -THIRD)), (1, 0, (-THIRD, THIRD)), (2, 1, (THIRD, 1))],
    )
    def test_a_macro_patch_holds_the_micro_patches_of_the_paper(
        self, position: int, macro_coordinate: float, micro_coordinates: tuple[float, float]
    ) -> None:
        lattice = Lattice("plane", 4, 4)
        places = lattice.inside(position, 0)[:2]
        assert lattice.macro(position, 0)[0] == macro_coordinate
        np.testing.assert_allclose(lattice.micro(places[:, 0], places[:, 1])[:, 0], micro_coordinates, atol=1e-15)

    @pytest.mark.parametrize(("side", "macro_side", "patch"), PUBLISHED.values(), ids=PUBLISHED)
    def test_closed_form_equals_the_form_in_pixels(self, side: int, macro_side: int, patch: int) -> None:
        assert_equals_pixel_form(side // patch, macro_side // patch, patch)

    @given(patches=st.integers(3, 200), span=st.integers(2, 20), patch=st.sampled_from([4, 8, 16, 32, 64, 128, 256]))
    def test_closed_form_equals_the_form_in_pixels_of_any_lattice(self, patches: int, span: int, patch: int) -> None:
        assume(patches > span)
        assert_equals_pixel_form(patches, span, patch)

    @given(patches=st.integers(3, 50), position=st.floats(-60, 60))
    def test_a_fractional_position_lies_in_proportion_between_its_neighbours(
        self, patches: int, position: float
    ) -> None:
        axis, below = Axis(patches, 2, False), math.floor(position)
        share = position - below
        expected = (1 - share) * axis.micro(below) + share * axis.micro(below + 1)
        np.testing.assert_allclose(axis.micro(position), expected, atol=1e-12)


def assert_equals_pixel_form(patches: int, span: int, patch: int) -> None:
    """The reference's form: px = (c' + 1) / 2 (F - K) + k P, c'' = 2 px / (F - P) - 1."""
    axis, side, macro_side = Axis(patches, span, False), patches * patch, span * patch
    first, step = np.arange(axis.macro_positions)[:, None], np.arange(span)
    pixels = (axis.macro(first)[..., 0] + 1) / 2 * (side - macro_side) + step * patch
    np.testing.assert_allclose(axis.micro(first + step)[..., 0], 2 * pixels / (side - patch) - 1, atol=1e-12)


class TestCyclicAxis:
    def test_the_twelve_columns_of_the_panorama(self) -> None:
        np.testing.assert_allclose(Axis(12, 2, True).micro(range(12)), TURN, atol=1e-15)

    def test_zeros_of_the_table_are_exact(self) -> None:
        np.testing.assert_array_equal(Axis(12, 2, True).micro(range(12)) == 0, TURN == 0)

    def test_a_macro_patch_has_the_angle_of_its_left_column(self) -> None:
        axis = Axis(12, 2, True)
        np.testing.assert_array_equal(axis.macro(range(12)), axis.micro(range(12)))

    def test_every_column_can_start_a_macro_patch(self) -> None:
        assert Axis(12, 2, True).macro_positions == 12

    @given(patches=st.integers(2, 60), span=st.integers(2, 8), start=st.integers(0, 59))
    def test_columns_of_a_macro_patch_are_two_over_the_columns_of_a_turn_apart(
        self, patches: int, span: int, start: int
    ) -> None:
        assume(span <= patches)
        lattice = Lattice("cylinder", span + 1, patches, span)
        places = lattice.inside(0, start)[::span]  # the top row
        t = -1 + 2 * start / patches + np.arange(span) * 2 / patches
        expected = np.stack([np.cos(np.pi * t), np.sin(np.pi * t)], axis=-1)
        np.testing.assert_allclose(lattice.micro(places[:, 0], places[:, 1])[:, 1:], expected, atol=1.01e-6)

    @given(patches=st.integers(2, 5000), turns=st.integers(-3, 3), data=st.data())
    def test_whole_turns_change_no_bit(self, patches: int, turns: int, data: st.DataObject) -> None:
        axis, column = Axis(patches, 2, True), data.draw(st.integers(0, patches - 1))
        np.testing.assert_array_equal(axis.micro(column + turns * patches), axis.micro(column))

    def test_column_minus_one_is_the_last(self) -> None:
        axis = Axis(12, 2, True)
        np.testing.assert_array_equal(axis.micro(-1), axis.micro(11))

    @given(patches=st.integers(2, 50), position=st.floats(-60, 60))
    def test_a_fractional_position_lies_at_the_angle_in_proportion(self, patches: int, position: float) -> None:
        axis, below = Axis(patches, 2, True), math.floor(position)
        cos, sin = axis.micro(below)
        turned = (position - below) * 2 * math.pi / patches
        expected = [
            cos * math.cos(turned) - sin * math.sin(turned),
            sin * math.cos(turned) + cos * math.sin(turned),
        ]
        np.testing.assert_allclose(axis.micro(position), expected, atol=2.1e-6)  # twice the snap to zero


class TestLattice:
    @given(lattice=lattices())
    def test_the_length_of_a_coordinate_is_announced(self, lattice: Lattice) -> None:
        assert micro(lattice).shape[1] == lattice.dimensions
        assert macro(lattice).shape[1] == lattice.dimensions

    @pytest.mark.parametrize(
        ("lattice", "micro_patches", "macro_patches"),
        [
            (Lattice("plane", 4, 4), 16, 9),
            (Lattice("plane", 8, 8, 4), 64, 25),
            (Lattice("plane", 16, 16, 8), 256, 81),
            (Lattice("plane", 32, 32, 16), 1024, 289),
            (Lattice("cylinder", 4, 12), 48, 36),
            (Lattice("torus", 4, 12), 48, 48),
        ],
        ids=str,
    )
    def test_distinct_coordinates(self, lattice: Lattice, micro_patches: int, macro_patches: int) -> None:
        assert (distinct(micro(lattice)), distinct(macro(lattice))) == (micro_patches, macro_patches)
        assert (len(lattice.cells()), len(lattice.macro_cells())) == (micro_patches, macro_patches)

    @pytest.mark.parametrize(("topology", "dimensions"), [("plane", 2), ("cylinder", 3), ("torus", 4)])
    def test_coordinates_are_as_long_as_their_topology_asks(self, topology: Topology, dimensions: int) -> None:
        lattice = Lattice(topology, 4, 12)
        assert lattice.dimensions == dimensions

    def test_the_vertical_axis_comes_first(self) -> None:
        assert Lattice("plane", 4, 4).micro(3, 0).tolist() == [1, -1]
        assert Lattice("cylinder", 4, 12).micro(3, 6).tolist() == [1, 1, 0]

    def test_a_torus_is_two_circles(self) -> None:
        np.testing.assert_allclose(
            micro(Lattice("torus", 12, 12)).reshape(12, 12, 4),  # [column, row]
            np.concatenate([np.broadcast_to(TURN, (12, 12, 2)), np.broadcast_to(TURN[:, None], (12, 12, 2))], axis=-1),
            atol=1e-15,
        )

    @given(lattice=lattices())
    def test_cells_run_column_by_column_the_row_fastest(self, lattice: Lattice) -> None:
        number = np.arange(lattice.rows * lattice.columns)
        expected = np.stack([number % lattice.rows, number // lattice.rows], axis=-1)
        np.testing.assert_array_equal(lattice.cells(), expected)

    @given(lattice=lattices())
    def test_macro_cells_run_column_by_column_the_row_fastest(self, lattice: Lattice) -> None:
        rows = lattice.axes[0].macro_positions
        number = np.arange(len(lattice.macro_cells()))
        np.testing.assert_array_equal(lattice.macro_cells(), np.stack([number % rows, number // rows], axis=-1))

    @given(lattice=lattices(), row=st.floats(-9, 9), column=st.floats(-9, 9))
    def test_inside_runs_column_by_column_from_the_corner(self, lattice: Lattice, row: float, column: float) -> None:
        places = lattice.inside(row, column)
        number = np.arange(lattice.span**2)
        np.testing.assert_array_equal(places[:, 0], row + number % lattice.span)
        np.testing.assert_array_equal(places[:, 1], column + number // lattice.span)

    def test_inside_takes_positions_of_any_shape(self) -> None:
        lattice = Lattice("plane", 6, 7, 3)
        rows, columns = np.arange(6).reshape(2, 3), np.arange(6).reshape(2, 3) / 2
        places = lattice.inside(rows, columns)
        assert places.shape == (2, 3, 9, 2)
        np.testing.assert_array_equal(places[1, 2], lattice.inside(5, 2.5))

    @given(lattice=lattices(), steps=st.integers(-50, 50))
    def test_rolling_by_lattice_steps_permutes_the_columns(self, lattice: Lattice, steps: int) -> None:
        assume(lattice.axes[1].cyclic)
        cells = lattice.cells()
        np.testing.assert_array_equal(
            lattice.micro(cells[:, 0], cells[:, 1] + steps), np.roll(micro(lattice), -steps * lattice.rows, axis=0)
        )

    def test_neighbouring_macro_patches_share_their_micro_patches(self) -> None:
        lattice = Lattice("plane", 4, 4)
        for left, right in pairwise(range(3)):
            np.testing.assert_array_equal(lattice.inside(0, left)[2:], lattice.inside(0, right)[:2])


class TestBeyond:
    SIXTHS = (-5 * THIRD, -1, -THIRD, THIRD, 1, 5 * THIRD)

    def test_one_ring_has_36_micro_coordinates(self) -> None:
        coordinates = micro(Lattice("plane", 4, 4), beyond=1).reshape(6, 6, 2)  # [column, row]
        np.testing.assert_allclose(coordinates[..., 0], np.broadcast_to(self.SIXTHS, (6, 6)), atol=1e-15)
        np.testing.assert_allclose(coordinates[..., 1].T, np.broadcast_to(self.SIXTHS, (6, 6)), atol=1e-15)

    def test_one_ring_has_25_macro_coordinates(self) -> None:
        coordinates = macro(Lattice("plane", 4, 4), beyond=1)
        assert {tuple(c) for c in coordinates} == {(v, h) for v in range(-2, 3) for h in range(-2, 3)}
        assert len(coordinates) == 25

    @given(lattice=lattices(), beyond=st.integers(0, 3))
    def test_every_macro_patch_of_the_ring_holds_micro_patches_of_the_ring(self, lattice: Lattice, beyond: int) -> None:
        assume(not (lattice.topology == "torus" and beyond))
        cells = {tuple(cell) for cell in lattice.cells(beyond)}
        corners = lattice.macro_cells(beyond)
        places = lattice.inside(corners[:, 0], corners[:, 1]).reshape(-1, 2)
        for k, axis in enumerate(lattice.axes):
            if axis.cyclic:
                places[:, k] %= axis.patches
        assert {tuple(place) for place in places} == cells

    @given(lattice=lattices(), beyond=st.integers(0, 3))
    def test_inside_the_picture_nothing_changes(self, lattice: Lattice, beyond: int) -> None:
        assume(not (lattice.topology == "torus" and beyond))
        extended = {tuple(c) for c in micro(lattice, beyond=beyond)}
        assert {tuple(c) for c in micro(lattice)} <= extended

    def test_a_cylinder_grows_up_and_down_only(self) -> None:
        cells = Lattice("cylinder", 4, 12).cells(beyond=2)
        assert set(cells[:, 0]) == set(range(-2, 6)) and set(cells[:, 1]) == set(range(12))

    def test_a_negative_ring_is_refused(self) -> None:
        with pytest.raises(LatticeError, match="by -1 patches; give 0 or more"):
            Lattice("plane", 4, 4).cells(beyond=-1)

    def test_a_torus_has_no_beyond(self) -> None:
        with pytest.raises(LatticeError, match="torus has no boundary"):
            Lattice("torus", 4, 4).macro_cells(beyond=1)


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (("plane", 4, 4, 1), "at least 2 micro patches wide, not 1"),
            (("torus", 4, 4, 0), "at least 2 micro patches wide, not 0"),
            (("plane", 2, 4, 2), "an open axis with span 2 needs at least 3 micro patches, not 2"),
            (("plane", 4, 4, 4), "an open axis with span 4 needs at least 5 micro patches, not 4"),
            (("cylinder", 2, 12, 2), "an open axis with span 2 needs at least 3 micro patches, not 2"),
            (("cylinder", 4, 2, 3), "a cyclic axis with span 3 needs at least 3 micro patches, not 2"),
            (("torus", 3, 8, 4), "a cyclic axis with span 4 needs at least 4 micro patches, not 3"),
        ],
    )
    def test_a_lattice_without_coordinates_is_refused(self, arguments: Any, sentence: str) -> None:
        with pytest.raises(LatticeError, match=sentence):
            Lattice(*arguments)

    @given(lattice=lattices(), beyond=st.integers(0, 2))
    def test_every_lattice_that_is_not_refused_has_finite_coordinates(self, lattice: Lattice, beyond: int) -> None:
        beyond = 0 if lattice.topology == "torus" else beyond
        assert np.isfinite(micro(lattice, beyond=beyond)).all()
        assert np.isfinite(macro(lattice, beyond=beyond)).all()
