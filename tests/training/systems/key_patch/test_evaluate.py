"""Reports measure what the paper measures, on pictures that training never saw."""

from typing import Any

import numpy as np
import pytest

from zellige.engine.library import load
from zellige.engine.systems.key_patch.model import KeyPatch
from zellige.training.loop import train
from zellige.training.metrics.neighbours import nearest
from zellige.training.systems.key_patch.evaluate import compare
from zellige.training.systems.key_patch.features import separability

from .tiny_key_patch import Blocks, picture, tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> KeyPatch:
    out = tmp_path_factory.mktemp("run")
    train(tiny(batch=2, steps=1), Blocks(), out, workers=0)  # type: ignore[arg-type]
    return load(out / "model.safetensors", "cpu", "fp32", rewrite=False)


@pytest.fixture(scope="module")
def report(model: KeyPatch) -> dict[str, Any]:
    return compare(model, Blocks(), Blocks(), 4)  # type: ignore[arg-type]


def test_key_and_random_patches_are_reported(report: dict[str, Any]) -> None:
    for kind in ("key", "random"):
        for name in ("appearance", "appearance_inside", "mask_l1", "mask_iou"):
            assert 0 <= report[f"{name}_{kind}"] <= 1
        assert report[f"sliced_wasserstein_{kind}"]["mean"] > 0


def test_a_perfect_model_keeps_patches_and_finds_their_places(model: KeyPatch, monkeypatch: pytest.MonkeyPatch) -> None:
    from zellige.engine.systems.key_patch.boxes import union_mask

    monkeypatch.setattr(model, "images", lambda sets: np.stack([one.picture for one in sets]))
    monkeypatch.setattr(model, "masks", lambda sets: np.stack([union_mask(s.boxes, (64, 64)) for s in sets]) * 1.0)
    found = compare(model, Blocks(), Blocks(), 2)  # type: ignore[arg-type]
    assert found["mask_iou_key"] == 1 and found["appearance_key"] == found["mask_l1_random"] == 0
    assert found["sliced_wasserstein_key"]["mean"] == 0


def test_a_black_mask_loses_everything(model: KeyPatch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "masks", lambda sets: np.zeros((len(sets), 64, 64), np.float32))
    found = compare(model, Blocks(), Blocks(), 2)  # type: ignore[arg-type]
    assert found["mask_iou_key"] == 0 and found["mask_l1_key"] > 0.1 and found["appearance_union_key"] > 0.2


def test_the_nearest_training_image_is_found() -> None:
    training = np.stack([picture(k) for k in range(70)])
    index, far = nearest(training[[3, 68]], training)
    assert index.tolist() == [3, 68] and far.tolist() == [0, 0]


def test_under_a_mask_the_rest_does_not_count() -> None:
    image, training = np.zeros((1, 8, 8, 3), np.uint8), np.zeros((2, 8, 8, 3), np.uint8)
    training[0, :4], training[1, 4:] = 200, 100
    masks = np.zeros((1, 8, 8), np.float32)
    masks[0, 4:] = 1
    assert nearest(image, training)[0].tolist() == [1] and nearest(image, training, masks)[0].tolist() == [0]


def test_separable_kinds_are_told_and_balance_is_said() -> None:
    pytest.importorskip("sklearn")
    random = np.random.default_rng(0)
    kinds = (np.arange(60) % 6 == 0).astype(np.int64)
    features = random.standard_normal((60, 8)).astype(np.float32) + 6 * kinds[:, None]
    found = separability(features, kinds, features, kinds)
    assert found is not None and found["balanced_accuracy"] == 1 and found["always"] == pytest.approx(5 / 6)
    assert separability(features, kinds * 0, features, kinds) is None
