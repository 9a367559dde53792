"""A loaded StyleGAN2 makes the same image in any batch, by any runtime, and says what its options do."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from zellige.engine.library import load
from zellige.engine.systems.stylegan2.model import StyleGan2, read_discriminator
from zellige.errors import SizeError, TaskError

from .tiny_stylegan2 import config, written


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("stylegan2") / "tiny.safetensors")


@pytest.fixture(scope="module")
def model(path: Path) -> StyleGan2:
    return load(path, "cpu", "fp32")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("noise", ["stored", "shared", "random"])
def test_an_image_is_the_same_in_any_batch(path: Path, precision: str, noise: str) -> None:
    some = load(path, "cpu", precision)
    images = some.generate(5, seed=3, noise=noise)
    assert images.shape == (5, 16, 16, 3) and images.std() > 10
    alone = [some.generate(1, seed=3, noise=noise, first=k)[0] for k in range(5)]
    assert np.array_equal(images, np.stack(alone))


def test_noise_is_of_the_model_of_the_seed_or_of_the_image(model: StyleGan2) -> None:
    stored = model.generate(2, seed=3)
    shared, random = (model.generate(2, seed=3, noise=noise) for noise in ("shared", "random"))
    assert (stored != shared).any() and (stored != random).any() and (shared != random).any()
    with pytest.raises(TaskError, match="no noise 'pink'"):
        model.generate(1, noise="pink")


def test_mixed_styles_begin_at_a_layer(model: StyleGan2) -> None:
    plain = model.generate(1, seed=1)
    assert np.array_equal(model.generate(1, seed=1, mix=1, mix_from=3), plain)
    late, early = (model.generate(1, seed=1, mix=2, mix_from=layer) for layer in (5, 1))
    other = model.generate(1, seed=2)
    far = [np.abs(plain.astype(int) - image).mean() for image in (late, early, other)]
    assert 0 < far[0] < far[1]
    with pytest.raises(SizeError, match="mixed styles begin at 1 to 5, not 6"):
        model.generate(1, mix=2, mix_from=6)


def test_psi_0_is_one_image(model: StyleGan2) -> None:
    images = model.generate(3, psi=0.0)
    assert (images == images[:1]).all()
    assert not np.array_equal(model.generate(3, psi=0.5), model.generate(3, psi=0.5, cutoff=2))


def test_features_are_those_that_images_are_made_of(model: StyleGan2) -> None:
    latents = model.draw(4, 0, 2)
    assert model.layers == ("w", "b4", "b8", "b16")
    assert model.features(latents, "w").shape == (2, 12, 1, 1) and model.features(latents, "b4").shape == (2, 24, 4, 4)
    made = model.images(latents)
    torch.testing.assert_close(made, model.generate(2, seed=4, as_="float"))
    with pytest.raises(TaskError, match="no layer 'b32'; its layers are w, b4, b8, b16"):
        model.features(latents, "b32")


def test_copies_make_the_same(model: StyleGan2) -> None:
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert np.array_equal(other.generate(1), model.generate(1))


def test_onnx_makes_the_same_to_a_level(path: Path, model: StyleGan2) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    other = load(path, "cpu", "fp32", runtime="onnx")
    assert np.abs(other.generate(3, psi=0.7).astype(int) - model.generate(3, psi=0.7)).max() <= 1
    with pytest.raises(TaskError, match="exported with its own noise"):
        other.generate(1, noise="random")


@pytest.mark.parametrize("task", ["generate", "synthesise"])
@pytest.mark.parametrize("flavour", ["portable", "fused"])
def test_every_task_is_exported_for_any_batch(path: Path, tmp_path: Path, task: str, flavour: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from zellige.engine.systems.stylegan2.graphs import GRAPHS
    from zellige.export.onnx import export_onnx

    file = tmp_path / f"{task}.onnx"
    export_onnx(path, file, task=task, flavour=flavour)
    if flavour == "portable":
        inputs = {name: rows.numpy() for name, rows in GRAPHS[task].example(config(), 5).items()}
        session = onnxruntime.InferenceSession(file)
        whole = session.run(None, inputs)[0]
        first = session.run(None, {name: rows[:1] for name, rows in inputs.items()})[0]
        assert whole.shape == (5, 16, 16, 3) and np.abs(whole[:1].astype(int) - first).max() <= 1
        if task == "generate":
            assert np.array_equal(load(file, "cpu").generate(2, seed=1), load(file, "cpu").generate(3, seed=1)[:2])


def test_a_file_keeps_its_discriminator_or_has_none(path: Path, tmp_path: Path, model: StyleGan2) -> None:
    found = read_discriminator(model.header, config(), torch.device("cpu"))
    assert found is not None and found(torch.zeros(2, 3, 16, 16)).shape == (2,)
