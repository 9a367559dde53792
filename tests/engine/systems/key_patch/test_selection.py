"""Key patches obey the paper's rules of size, aspect and overlap, and are the same at every call."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zellige.engine.systems.key_patch.boxes import overlaps
from zellige.engine.systems.key_patch.parts import key_patches
from zellige.engine.systems.key_patch.selection import edge_boxes, key_boxes, random_boxes, structured_edges
from zellige.errors import DataError, MissingExtraError, ShapeError

from .tiny_key_patch import config, picture


@pytest.fixture(params=["key_boxes", "edge_boxes"])
def choose(request: pytest.FixtureRequest) -> Callable[..., Any]:
    if request.param == "edge_boxes":
        pytest.importorskip("cv2")
        return edge_boxes
    return key_boxes


@pytest.mark.parametrize("options", [{}, {"least_side": 0.1, "most_side": 0.3, "most_area": 0.04}])
def test_key_patches_obey_the_rules(choose: Callable[..., Any], options: dict[str, float]) -> None:
    rules = config(**options)
    for seed in range(8):
        boxes = choose(picture(seed), 3, rules)
        w, h = boxes[:, 2] / 64, boxes[:, 3] / 64
        assert boxes.shape == (3, 4)
        assert (np.minimum(w, h) >= rules.least_side).all() and (np.maximum(w, h) <= rules.most_side).all()
        assert (w * h <= rules.most_area).all() and (np.maximum(w / h, h / w) <= rules.most_aspect).all()
        assert (boxes[:, :2] >= 0).all() and (boxes[:, :2] + boxes[:, 2:] <= 64).all()
        assert (overlaps(boxes, boxes) - np.eye(3)).max() <= rules.most_overlap


def test_the_same_picture_has_the_same_key_patches(choose: Callable[..., Any]) -> None:
    first = choose(picture(3), 3, config())
    choose(picture(4), 3, config())
    np.testing.assert_array_equal(choose(picture(3), 3, config()), first)


def test_key_patches_are_where_the_edges_are() -> None:
    drawn = np.full((64, 64, 3), 255, np.uint8)
    drawn[8:22, 40:56] = (200, 30, 30)
    x, y, w, h = key_boxes(drawn, 1, config())[0]
    assert x <= 40 and y <= 8 and x + w >= 56 and y + h >= 22


def test_more_pixels_have_the_same_key_patches_but_for_rounding() -> None:
    small = picture(5)
    large = small.repeat(2, 0).repeat(2, 1)
    first, second = key_boxes(small, 1, config()), key_boxes(large, 1, config(resolution=128))
    assert np.abs(second / 2 - first).max() <= 4


def test_a_picture_without_edges_has_no_key_patch(choose: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match="the image has no edges.*take random patches"):
        choose(np.full((64, 64, 3), 90, np.uint8), 3, config())


def test_random_patches_have_sizes_of_key_patches_anywhere() -> None:
    boxes = random_boxes(np.random.default_rng(0), 2000, config())
    side = boxes[:, 2:] / 64
    assert side.min() >= 0.25 and side.max() <= 0.4
    assert boxes[:, :2].min() == 0 and (boxes[:, :2] + boxes[:, 2:]).max() == 64
    again = random_boxes(np.random.default_rng(0), 2000, config())
    np.testing.assert_array_equal(boxes, again)


def test_without_opencv_a_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtraError, match=r"by EdgeBoxes needs the package .opencv.*zellige\[key-patch\]"):
        edge_boxes(picture(), 3, config())


def forest(path: Path) -> Path:
    """A model of structured edges: one tree, which draws an upright edge wherever its first channel is not dark."""
    lists = {
        "childs": [2, 0, 0], "featureIds": [0, 0, 0], "thresholds": [0.1, 0.0, 0.0],
        "edgeBoundaries": [0, 0, 0, 16], "edgeBins": [8 + 16 * row for row in range(16)],
    }  # fmt: skip
    options = {
        "stride": 2, "shrinkNumber": 2, "patchSize": 32, "patchInnerSize": 16, "numberOfGradientOrientations": 4,
        "gradientSmoothingRadius": 0, "regFeatureSmoothingRadius": 2, "ssFeatureSmoothingRadius": 8,
        "gradientNormalizationRadius": 4, "selfsimilarityGridSize": 5, "numberOfTrees": 1,
        "numberOfTreesToEvaluate": 1,
    }  # fmt: skip
    written = ["%YAML:1.0", "---", "options:", *(f"    {name}: {value}" for name, value in options.items())]
    for name, values in lists.items():
        written += [f"{name}:", f"    - [ {', '.join(map(str, values))} ]"]
    path.write_text("\n".join(written) + "\n")
    return path


class TestStructuredEdges:
    def test_edges_of_a_model_choose_other_boxes_by_the_same_rules(self, tmp_path: Path) -> None:
        pytest.importorskip("cv2")
        model, rules = str(forest(tmp_path / "edges.yml")), config()
        drawn = np.zeros((64, 64, 3), np.uint8)
        drawn[8:40, 34:54] = (255, 240, 230)
        boxes = edge_boxes(drawn, 3, rules, model)
        np.testing.assert_array_equal(edge_boxes(drawn, 3, rules, model), boxes)
        assert boxes.shape == (3, 4)
        w, h = boxes[:, 2] / 64, boxes[:, 3] / 64
        assert (np.minimum(w, h) >= rules.least_side).all() and (np.maximum(w, h) <= rules.most_side).all()
        edges, angles = structured_edges(drawn, model)
        assert edges.shape == angles.shape == (64, 64)
        # The tree looks at the first cell of a patch of 32 pixels, and draws in its middle 16.
        assert float(edges.sum()) > 0 and float(edges[:20].sum()) == float(edges[:, :40].sum()) == 0

    def test_a_file_that_is_none_is_a_sentence(self, tmp_path: Path) -> None:
        pytest.importorskip("cv2")
        with pytest.raises(DataError, match="is no file; name a model of structured edges"):
            edge_boxes(picture(), 3, config(), str(tmp_path / "none.yml"))
        (tmp_path / "text.yml").write_text("no model")
        with pytest.raises(DataError, match="is no model of structured edges that OpenCV can read"):
            edge_boxes(picture(), 3, config(), str(tmp_path / "text.yml"))

    def test_it_goes_with_edgeboxes_alone(self) -> None:
        with pytest.raises(ShapeError, match="is for patches by edgeboxes, not by edges; leave one out"):
            key_patches(picture(), 3, "edges", config(), np.random.default_rng(0), "edges.yml")
