"""Boxes are whole pixels, flips are exact, and overlaps count once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zellige.engine.systems.key_patch.boxes import (
    checked_boxes,
    cut_patches,
    flipped,
    overlaps,
    rounded_out,
    stretched,
    union_mask,
)
from zellige.errors import ShapeError

from .tiny_key_patch import picture

sides = st.floats(0, 40)


def test_an_overlap_counts_once() -> None:
    mask = union_mask(np.array([[0, 0, 10, 10], [5, 5, 10, 10]]), (20, 20))
    assert mask.max() == 1 and mask.sum() == 100 + 100 - 25


@given(st.lists(st.tuples(sides, sides, st.floats(1, 24), st.floats(1, 24)), min_size=1, max_size=4))
def test_flipping_before_and_after_rounding_is_the_same(boxes: list[tuple[float, ...]]) -> None:
    mirrored = [(64 - x - w, y, w, h) for x, y, w, h in boxes]
    first = union_mask(rounded_out(mirrored, (64, 64)), (64, 64))
    last = union_mask(flipped(rounded_out(boxes, (64, 64)), 64), (64, 64))
    np.testing.assert_array_equal(first, last)
    np.testing.assert_array_equal(last, union_mask(rounded_out(boxes, (64, 64)), (64, 64))[:, ::-1])


def test_boxes_are_rounded_outward_and_cut_at_the_border() -> None:
    assert rounded_out([[10.2, 3.0, 4.1, 62.0]], (64, 64)).tolist() == [[10, 3, 5, 61]]


def test_patches_are_stretched_bicubically_to_the_input() -> None:
    whole = picture()
    (patch,) = cut_patches(whole, np.array([[8, 16, 24, 12]]))
    np.testing.assert_array_equal(patch, stretched(whole[16:28, 8:32], 64))
    assert patch.shape == (64, 64, 3)
    np.testing.assert_array_equal(cut_patches(whole, np.array([[0, 0, 64, 64]]))[0], whole)


def test_a_patch_of_one_pixel_is_one_colour() -> None:
    (patch,) = cut_patches(picture(), np.array([[20, 20, 1, 1]]))
    assert (patch == picture()[20, 20]).all()


def test_overlap_is_intersection_over_union() -> None:
    boxes = np.array([[0, 0, 10, 10], [5, 0, 10, 10], [30, 30, 5, 5]])
    found = overlaps(boxes, boxes)
    np.testing.assert_allclose(found, [[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("box", "said"),
    [((-1, 0, 5, 5), "leaves the image, which has 64 x 64 pixels"), ((60, 0, 5, 5), "leaves the image"),
     ((3, 3, 0, 5), "has no area"), ((3, 3, 4, -2), "has no area")],
)  # fmt: skip
def test_boxes_outside_and_empty_ones_are_refused(box: tuple[int, ...], said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        checked_boxes([box], (64, 64))


@pytest.mark.parametrize("boxes", [[], [[1, 2, 3]], [[1.5, 2, 3, 4]]])
def test_what_is_no_boxes_is_refused(boxes: list[list[float]]) -> None:
    with pytest.raises(ShapeError, match="boxes must be whole numbers"):
        checked_boxes(boxes, (64, 64))
