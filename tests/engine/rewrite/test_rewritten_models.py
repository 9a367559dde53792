"""Whichever forms the layers of a model have, its images are the same, and each the same in any batch."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zellige.engine.library import load

from .timed import Timer, folder, needs_tiles, timer

__all__ = ["folder", "timer"]

ModelFile = Callable[..., Path]
Open = Callable[..., Any]

FORMS = {
    "phases": {"PhaseUpConv": 0.1},
    "constant channels": {"ConstantChannelsConv": 0.1},
    "winograd": {"WinogradConv": 0.1},
}
WINOGRAD = pytest.param("winograd", marks=needs_tiles)
DENSE = ("dense", "phases")  # all of its up-sampled maps have spare cells
each_form = pytest.mark.parametrize("form", ["phases", "constant channels", WINOGRAD])
each_precision = pytest.mark.parametrize("precision", ["fp32", "bf16"])
each_coco_gan = pytest.mark.parametrize("kind", ["plane", "cylinder", "dense"])


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def opened(timer: Timer, model_file: ModelFile, onegan_file: ModelFile) -> Open:
    """A tiny model with one kind of form wherever there is one, or as it was trained."""

    def model(kind: str, form: str | None, precision: str = "fp32") -> Any:
        # Of twice the width the convolution under a code has outputs enough for winograd.
        path = onegan_file(width=2) if kind == "onegan" else model_file(kind)
        timer(**FORMS.get(form or "", {}))
        made = load(path, device="cpu", precision=precision, rewrite=form is not None)
        return made

    return model


def assert_alike(images: np.ndarray, expected: np.ndarray, precision: str) -> None:
    """Within a level in float32; in bfloat16, whose sums are rounded in another order, to 40 dB."""
    assert expected.astype(float).std() > 4  # a grey image would prove nothing
    error = images.astype(float) - expected
    if precision == "fp32":
        assert np.abs(error).max() <= 1
    assert 10 * np.log10(255**2 / max(np.square(error).mean(), 1e-9)) > 40


def changed(model: Any, name: str) -> int:
    return sum(type(part).__name__ == name for part in network(model).modules())


def network(model: Any) -> torch.nn.Module:
    return model.networks if hasattr(model, "networks") else model.generator


@each_precision
@each_form
def test_a_onegan_makes_the_same_images(opened: Open, form: str, precision: str) -> None:
    trained, model = opened("onegan", None, precision), opened("onegan", form, precision)
    assert not trained.choices and changed(model, next(iter(FORMS[form]))) >= 2
    images = trained.generate(2, seed=1)
    assert_alike(model.generate(2, seed=1), images, precision)
    parts, expected = model.reconstruct(images), trained.reconstruct(images)
    for name in ("image", "foreground", "background", "mask"):
        assert_alike(getattr(parts, name), getattr(expected, name), precision)


@each_precision
@each_coco_gan
@pytest.mark.parametrize("form", ["phases", WINOGRAD])
def test_a_coco_gan_makes_the_same_images(opened: Open, kind: str, form: str, precision: str) -> None:
    trained, model = opened(kind, None, precision), opened(kind, form, precision)
    assert not trained.choices and changed(model, next(iter(FORMS[form]))) >= (0 if (kind, form) == DENSE else 1)
    assert_alike(model.generate(3, seed=1), trained.generate(3, seed=1), precision)


@pytest.mark.usefixtures("two_threads")
@each_precision
@each_form
def test_an_image_of_a_onegan_has_the_same_bits_in_any_batch(opened: Open, form: str, precision: str) -> None:
    model = opened("onegan", form, precision)
    many = model.generate(7, seed=2)
    for count in (1, 2):
        assert (model.generate(count, seed=2) == many[:count]).all()
    parts = model.reconstruct(many[:3])
    for k in (0, 2):
        alone = model.reconstruct(many[k : k + 1])
        assert (alone.image[0] == parts.image[k]).all() and (alone.mask[0] == parts.mask[k]).all()


@pytest.mark.usefixtures("two_threads")
@each_precision
@each_coco_gan
@pytest.mark.parametrize("form", ["phases", WINOGRAD])
def test_an_image_of_a_coco_gan_has_the_same_bits_in_any_batch(
    opened: Open, kind: str, form: str, precision: str
) -> None:
    model = opened(kind, form, precision)
    many = model.generate(9, seed=2)
    for count in (1, 2):
        assert (model.generate(count, seed=2) == many[:count]).all()


@pytest.mark.parametrize("kind", ["onegan", "plane", "cylinder", "dense"])
def test_a_second_load_makes_the_same_choices_without_measuring(opened: Open, kind: str) -> None:
    first, second = opened(kind, "phases"), opened(kind, "winograd")
    assert first.choices and all(choice.cached for choice in second.choices)
    assert second.choices == first.choices
    assert (first.generate(2) == second.generate(2)).all()
