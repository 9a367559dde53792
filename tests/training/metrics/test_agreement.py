import math
import sys
from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zellige.errors import DataError, MissingExtraError, ShapeError
from zellige.training.metrics.agreement import (
    clustering_accuracy,
    dice,
    intersection_over_union,
    matched_clusters,
    normalized_mutual_information,
)

LABELS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30).map(np.array)


def columns(*ranges: tuple[int, int]) -> np.ndarray:
    """Masks [N, 4, 8] whose foregrounds are ranges of columns."""
    return np.stack([np.repeat((np.arange(8) >= a)[None] & (np.arange(8) < b)[None], 4, axis=0) for a, b in ranges])


class TestMasks:
    @pytest.mark.parametrize(
        ("predicted", "truth", "iou", "overlap"),
        [
            ((0, 4), (0, 4), 1, 1),
            ((0, 4), (4, 8), 0, 0),
            ((0, 4), (2, 6), 1 / 3, 1 / 2),
            ((0, 8), (0, 2), 1 / 4, 2 / 5),
            ((0, 0), (0, 2), 0, 0),
            ((0, 0), (0, 0), 1, 1),
        ],
    )
    def test_values(self, predicted: tuple[int, int], truth: tuple[int, int], iou: float, overlap: float) -> None:
        assert intersection_over_union(columns(predicted), columns(truth)) == pytest.approx(iou)
        assert dice(columns(predicted), columns(truth)) == pytest.approx(overlap)

    def test_images_count_alike_whatever_their_area(self) -> None:
        predicted, truth = columns((0, 1), (0, 8)), columns((1, 2), (0, 8))
        assert intersection_over_union(predicted, truth) == dice(predicted, truth) == 0.5

    @pytest.mark.parametrize(
        ("below", "above"),
        [(np.float32(0.499), np.float32(0.5)), (np.uint8(127), np.uint8(128)), (np.False_, np.True_)],
    )
    def test_foreground_is_from_a_half_on(self, below: Any, above: Any) -> None:
        truth = columns((0, 4))
        assert intersection_over_union(np.where(truth, above, below), truth) == 1

    @given(seed=st.integers(0, 2**32))
    def test_dice_follows_from_iou(self, seed: int) -> None:
        predicted, truth = np.random.default_rng(seed).random((2, 1, 3, 5)) < 0.5
        iou = intersection_over_union(predicted, truth)
        assert dice(predicted, truth) == pytest.approx(2 * iou / (1 + iou))

    def test_other_masks_are_refused(self) -> None:
        with pytest.raises(ShapeError, match=r"one shape; got \(1, 4, 8\) and \(2, 4, 8\)"):
            dice(columns((0, 1)), columns((0, 1), (0, 1)))
        with pytest.raises(ShapeError, match=r"masks must be \[N, H, W\]"):
            intersection_over_union(columns((0, 1))[0], columns((0, 1))[0])
        with pytest.raises(ShapeError, match="floating .* got int64"):
            intersection_over_union(columns((0, 1)).astype(np.int64), columns((0, 1)))


class TestClusteringAccuracy:
    @pytest.mark.parametrize(
        ("clusters", "classes", "accuracy"),
        [
            ([0, 0, 1, 1], [0, 0, 1, 1], 1),
            ([7, 7, -3, -3], [0, 0, 1, 1], 1),
            ([0, 0, 0, 0], [0, 0, 1, 1], 1 / 2),
            ([0, 1, 2, 3], [0, 0, 1, 1], 1 / 2),
            ([0, 1, 0, 1], [0, 0, 1, 1], 1 / 2),
            ([0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 2, 2], 5 / 6),
        ],
    )
    def test_values(self, clusters: list[int], classes: list[int], accuracy: float) -> None:
        assert clustering_accuracy(np.array(clusters), np.array(classes)) == pytest.approx(accuracy)

    def test_the_matching_is_the_best_one_and_not_the_greedy_one(self) -> None:
        # Cluster 0 has 5 of class 0 and 4 of class 1, cluster 1 has 4 of class 0: greed would take the 5 alone.
        clusters, classes = np.array([0] * 9 + [1] * 4), np.array([0] * 5 + [1] * 4 + [0] * 4)
        assert clustering_accuracy(clusters, classes) == pytest.approx(8 / 13)

    @given(labels=LABELS)
    def test_no_renaming_of_the_clusters_does_better(self, labels: np.ndarray) -> None:
        best = max((np.take(names, labels[:, 0]) == labels[:, 1]).mean() for names in permutations(range(4)))
        assert clustering_accuracy(labels[:, 0], labels[:, 1]) == pytest.approx(best)

    @pytest.mark.parametrize(
        ("clusters", "classes", "matched"),
        [
            ([7, 7, -3, -3], [0, 0, 1, 1], {0: 7, 1: -3}),
            ([0] * 9 + [1] * 4, [0] * 5 + [1] * 4 + [0] * 4, {0: 1, 1: 0}),
            ([5, 5, 5], [0, 0, 1], {0: 5}),
            ([0, 1, 1], [4, 4, 4], {4: 1}),
            ([0, 0, 0, 1, 1], [0, 0, 1, 0, 0], {0: 1, 1: 0}),
            ([0, 0, 1], [2, 2, 2], {2: 0}),
        ],
    )
    def test_a_class_has_its_cluster_or_none(
        self, clusters: list[int], classes: list[int], matched: dict[int, int]
    ) -> None:
        assert matched_clusters(np.array(clusters), np.array(classes)) == matched

    def test_a_class_is_matched_to_no_cluster_that_it_has_no_sample_in(self) -> None:
        assert matched_clusters(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 0])) in ({0: 0}, {0: 1, 1: 0})
        assert matched_clusters(np.array([0, 0, 0, 0, 1]), np.array([0, 0, 0, 1, 0])) == {0: 0}

    def test_without_scipy_the_error_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "scipy.optimize", None)
        with pytest.raises(MissingExtraError, match=r"clustering accuracy needs the package 'scipy'.*zellige\[train\]"):
            clustering_accuracy(np.zeros(2, np.int64), np.zeros(2, np.int64))


class TestNormalizedMutualInformation:
    @pytest.mark.parametrize(
        ("clusters", "classes", "information"),
        [
            ([0, 0, 1, 1], [1, 1, 0, 0], 1),
            ([0, 1, 0, 1], [0, 0, 1, 1], 0),
            ([0, 0, 0, 0], [0, 0, 1, 1], 0),
            ([0, 0, 0, 0], [5, 5, 5, 5], 1),
            ([0, 0, 1, 2], [0, 0, 1, 1], 2 / (1 + 1.5)),
            ([0, 1, 2, 3], [0, 0, 1, 1], 2 / (1 + 2)),
            # I = ln 4 - (3/4) ln 3, H = ln 2 and ln 4 - (3/4) ln 3.
            (
                [0, 0, 0, 1],
                [0, 0, 1, 1],
                2
                * (math.log(2) + (math.log(4) - 0.75 * math.log(3)) - 1.5 * math.log(2))
                / (math.log(2) + math.log(4) - 0.75 * math.log(3)),
            ),
        ],
    )
    def test_values(self, clusters: list[int], classes: list[int], information: float) -> None:
        found = normalized_mutual_information(np.array(clusters), np.array(classes))
        assert found == pytest.approx(information, abs=1e-12)

    @given(labels=LABELS)
    def test_it_is_symmetric_and_between_zero_and_one(self, labels: np.ndarray) -> None:
        one = normalized_mutual_information(labels[:, 0], labels[:, 1])
        assert 0 <= one <= 1
        assert one == pytest.approx(normalized_mutual_information(labels[:, 1], labels[:, 0]), abs=1e-12)

    def test_many_random_labels_share_next_to_nothing(self) -> None:
        clusters, classes = np.random.default_rng(0).integers(0, 10, (2, 100_000))
        assert normalized_mutual_information(clusters, classes) < 1e-3


@pytest.mark.parametrize("metric", [clustering_accuracy, matched_clusters, normalized_mutual_information])
@pytest.mark.parametrize("shapes", [((3,), (4,)), ((0,), (0,)), ((2, 2), (2, 2))])
def test_other_labels_are_refused(metric: Any, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ShapeError, match=r"clusters and classes must be \[N\] of one length"):
        metric(*(np.zeros(shape, np.int64) for shape in shapes))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("metric", [intersection_over_union, dice])
def test_masks_that_are_not_finite_are_refused(metric: Callable[..., float], value: float) -> None:
    masks = np.zeros((1, 2, 2), np.float32)
    masks[0, 0, 0] = value
    for pair in ((masks, np.zeros_like(masks)), (np.zeros_like(masks), masks)):
        with pytest.raises(DataError, match="masks hold values that are not finite"):
            metric(*pair)
