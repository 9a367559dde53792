from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zellige.engine.library import load
from zellige.engine.systems.coco_gan.model import CocoGan
from zellige.engine.systems.onegan.model import OneGan
from zellige.errors import TaskError
from zellige.export.network import task_network

ModelFile = Callable[..., Path]


@pytest.fixture(scope="module")
def onegan(onegan_file: ModelFile) -> OneGan:
    model = load(onegan_file(), "cpu", "fp32", rewrite=False)
    assert isinstance(model, OneGan)
    return model


def made(model: Any, task: str, inputs: dict[str, torch.Tensor]) -> list[np.ndarray]:
    network = task_network(model, task, "image", "fp32")
    assert network.example(1).keys() == inputs.keys()
    with torch.inference_mode():
        return [tensor.numpy() for tensor in network.module(*inputs.values())]


def furthest(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape and a.dtype == b.dtype == np.uint8
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def test_every_task_of_onegan_is_the_engines(onegan: OneGan) -> None:
    images = onegan.generate(3, seed=5)
    given = torch.from_numpy(images)
    parts = onegan.reconstruct(images)
    expected = {
        "reconstruct": [parts.image, parts.foreground, parts.background, parts.mask],
        "segment": [np.stack(onegan.segment(images, soft=True))],
        "inpaint": [onegan.inpaint(images)],
    }
    for task, right in expected.items():
        for found, wanted in zip(made(onegan, task, {"images": given}), right, strict=True):
            assert furthest(found, wanted) <= 1
    classes = torch.tensor([1, 0, 2])
    (styled,) = made(onegan, "translate", {"images": given, "child": classes})
    assert furthest(styled, onegan.translate(images, classes.numpy())) <= 1
    (moved,) = made(onegan, "recompose", {"images": given.flip(0), "background": given})
    assert furthest(moved, onegan.recompose(images[::-1].copy(), images)) <= 1
    child, parent = made(onegan, "cluster", {"images": given})
    found = onegan.cluster(images)
    assert (child.argmax(1) == found.child).all() and (parent.argmax(1) == found.parent).all()
    np.testing.assert_allclose(child.max(1), found.confidence, rtol=1e-5)


def test_images_by_class_and_by_example_are_the_engines(onegan: OneGan) -> None:
    from zellige.engine.systems.onegan.classes import draw_latents

    (latents, _), classes = draw_latents(onegan.config, 3, 2), np.array([1, 0])
    latent, chosen = torch.from_numpy(np.asarray(latents)), torch.from_numpy(classes)
    inputs = {"child": chosen, "parent": chosen, "latent": latent, "background": chosen}
    (images,) = made(onegan, "generate", inputs)
    assert furthest(images, onegan.generate(2, seed=3, child=classes, parent=classes, background=classes)) <= 1
    like = np.stack([onegan.like(images[k : k + 1], 2, seed=3)[0, k] for k in range(2)])
    (alike,) = made(onegan, "like", {"images": torch.from_numpy(images), "latent": latent})
    assert furthest(alike, like) <= 1


@pytest.mark.parametrize("name", ["plane", "dense"])
def test_every_task_of_coco_gan_is_the_engines(model_file: ModelFile, name: str) -> None:
    model = load(model_file(name), "cpu", "fp32", rewrite=False)
    assert isinstance(model, CocoGan)
    latents = np.random.default_rng(0).uniform(-1, 1, (2, model.config.latent))
    latent = torch.from_numpy(latents).float()
    whole = model.from_latents(latents)
    (images,) = made(model, "generate", {"latent": latent})
    assert furthest(images, whole) <= 1
    side = model.config.patch
    place = torch.from_numpy(model.config.lattice.micro(np.array([1.0, 1.0]), np.array([2.0, 2.0]))).float()
    (patches,) = made(model, "patches", {"latent": latent, "coordinates": place})
    assert furthest(patches, whole[:, side : 2 * side, 2 * side : 3 * side]) <= 1


def test_a_task_of_another_system_is_refused(onegan: OneGan) -> None:
    with pytest.raises(
        TaskError, match=r"^tiny.* is a onegan model, whose tasks for export are generate, like, .*'patches' is none$"
    ):
        task_network(onegan, "patches", "image", "fp32")
