"""What the bundled key-patch model is said to do, on emoji that it was not trained on."""

import numpy as np
import pytest

from zellige.engine.library import BUNDLED, load
from zellige.engine.systems.key_patch.boxes import union_mask
from zellige.engine.systems.key_patch.model import KeyPatch
from zellige.engine.systems.key_patch.parts import key_patches
from zellige.errors import DataError
from zellige.training.data.sources import Pictures, open_pictures
from zellige.training.metrics.agreement import intersection_over_union

COUNT = 48


@pytest.fixture(scope="module")
def keys() -> KeyPatch:
    model: KeyPatch = load("keys", "cpu", "fp32", rewrite=False)
    return model


@pytest.fixture(scope="module")
def faces(keys: KeyPatch) -> Pictures:
    try:
        return open_pictures("emoji-faces", keys.size, "plane", "held-out")
    except DataError as error:
        pytest.skip(f"the emoji are not installed: {error}")


def test_it_stays_small() -> None:
    assert (BUNDLED / "keys.safetensors").stat().st_size < 16_000_000


def test_it_places_the_patches_of_held_out_emoji_and_keeps_them(keys: KeyPatch, faces: Pictures) -> None:
    real = np.stack([faces.image(k) for k in range(COUNT)])
    sets = [key_patches(one, 3, "edges", keys.config, np.random.default_rng(0)) for one in real]
    true = np.stack([union_mask(one.boxes, keys.size) for one in sets if one.boxes is not None])
    assert intersection_over_union(keys.masks(sets) >= 0.5, true >= 0.5) > 0.6
    assert intersection_over_union(np.ones_like(true, bool), true >= 0.5) < 0.35  # of a mask that is everywhere
    error = np.abs(keys.images(sets).astype(float) - real).mean(3) / 255
    assert error[true >= 0.5].mean() < 0.22 and error.mean() < 0.15


def test_patches_of_two_emoji_make_one(keys: KeyPatch, faces: Pictures) -> None:
    one, other = faces.image(1), faces.image(3)
    boxes = ["12,14,22,22", "32,14,22,22", "20,42,24,22"]
    made = keys.compose([one, one, other], box=boxes)
    alone = keys.compose([one, one, one], box=boxes)
    assert made.image.shape == (1, *keys.size, 3)
    assert np.abs(made.image.astype(int) - alone.image).mean() > 2
