"""What the bundled OneGAN is said to do, on scenes that it was not trained on."""

import numpy as np
import pytest

from zellige.engine.library import BUNDLED, load_for
from zellige.engine.systems.onegan.model import OneGan
from zellige.errors import DataError
from zellige.training.data.scenes import LabelledImage
from zellige.training.data.sources import open_scenes
from zellige.training.metrics.agreement import intersection_over_union
from zellige.training.systems.onegan.evaluate import FIRST

COUNT = 48


@pytest.fixture(scope="module")
def scenes() -> list[LabelledImage]:
    try:
        held_out = open_scenes("emoji", (64, 64), "held-out", 0)
    except DataError as error:
        pytest.skip(f"the emoji are not installed: {error}")
    return [held_out.scene(FIRST + k) for k in range(COUNT)]


@pytest.fixture(scope="module")
def emoji() -> OneGan:
    return load_for(OneGan, "tests", "emoji", "cpu", "fp32")


@pytest.fixture(scope="module")
def images(scenes: list[LabelledImage]) -> np.ndarray:
    return np.stack([scene.image for scene in scenes])


def test_it_stays_small() -> None:
    assert (BUNDLED / "emoji.safetensors").stat().st_size < 16_000_000


def test_masks_find_the_objects(emoji: OneGan, scenes: list[LabelledImage], images: np.ndarray) -> None:
    truth = np.stack([scene.mask for scene in scenes if scene.mask is not None]) >= 128
    made = np.stack(emoji.segment(images)) >= 128
    assert intersection_over_union(made, truth) > 0.7
    everything = np.ones_like(truth)
    assert intersection_over_union(everything, truth) < 0.4


def test_reconstructions_resemble_the_scenes(emoji: OneGan, images: np.ndarray) -> None:
    square = np.square(emoji.reconstruct(images).image.astype(float) - images).mean((1, 2, 3))
    assert np.mean(10 * np.log10(255**2 / square)) > 21


def test_clusters_tell_classes_apart(emoji: OneGan, scenes: list[LabelledImage], images: np.ndarray) -> None:
    found, classes = emoji.cluster(images).child, np.array([scene.child for scene in scenes])
    same = classes[:, None] == classes
    np.fill_diagonal(same, False)
    together = found[:, None] == found
    assert together[same].mean() > 4 * together[~same & ~np.eye(COUNT, dtype=bool)].mean()


def test_images_have_objects_on_grounds(emoji: OneGan) -> None:
    made = emoji.generate(16, seed=0)
    assert 0.02 < (np.stack(emoji.segment(made)) >= 128).mean() < 0.6
    assert made.std(axis=0).mean() > 20
