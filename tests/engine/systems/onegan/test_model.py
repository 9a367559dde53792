import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import zellige
from zellige.engine.files.squares import Squares
from zellige.engine.library import list_models, load_task
from zellige.engine.systems.onegan import model as subject
from zellige.engine.systems.onegan.classes import draw_pairs
from zellige.engine.systems.onegan.model import OneGan
from zellige.errors import CheckpointError, DeviceError, ShapeError, SizeError, TaskError, UnknownModelError

from .tiny_onegan import one_thread, tiny

__all__ = ["one_thread"]

OneGanModel = Callable[..., OneGan]
ModelFile = Callable[..., Path]
PRECISIONS = pytest.mark.parametrize("precision", ["fp32", "bf16"])


def pictures(count: int = 3, seed: int = 0, side: int = 64) -> np.ndarray:
    """Smooth random images, since a random network shrinks noise to grey."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (count, 5, 5, 3), np.uint8)
    return np.stack([Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC) for image in small])


class TestLoading:
    def test_a_checkpoint_opens_by_its_path(self, onegan_file: ModelFile) -> None:
        loaded = zellige.load(onegan_file(), device="cpu", precision="bf16")
        assert isinstance(loaded, OneGan)
        assert (loaded.name, loaded.precision, loaded.device.type) == (onegan_file().stem, "bf16", "cpu")
        assert loaded.size == (64, 64)

    def test_bf16_leaves_codes_and_class_heads_in_fp32(self, onegan: OneGanModel) -> None:
        networks = onegan("bf16").networks
        assert networks.foreground.to_image.weight.dtype is torch.bfloat16
        for layer in (networks.child_encoder.classes, networks.child_vectors, networks.background.pre_image.stem):
            assert layer.weight.dtype is torch.float32

    def test_a_row_describes_the_model(self, onegan_file: ModelFile) -> None:
        row = next(row for row in list_models(onegan_file().parent) if row["path"] == str(onegan_file()))
        weights = zellige.load(onegan_file(), device="cpu", rewrite=False).networks.parameters()  # type: ignore[union-attr]
        assert (row["system"], row["resolution"]) == ("onegan", "64x64")
        assert row["parameters"] == sum(weight.numel() for weight in weights)

    def test_missing_tensors_are_named(self, tmp_path: Path) -> None:
        from zellige.engine.checkpoint.file import write_checkpoint

        path, config = tmp_path / "hollow.safetensors", tiny().model_dump(mode="json")
        write_checkpoint(path, {"networks.x": torch.zeros(10**6)}, system="onegan", config=config)
        with pytest.raises(CheckpointError, match=r"the tensor 'networks\..*' is missing"):
            zellige.load(path)
        write_checkpoint(path, {"networks.x": torch.zeros(1)}, system="onegan", config=config | {"resolution": 96})
        with pytest.raises(CheckpointError, match="resolution must be 64 or 128, not 96"):
            zellige.load(path)

    def test_a_model_of_another_system_is_refused_for_a_task(self, model_file: ModelFile) -> None:
        path = model_file("plane")
        with pytest.raises(TaskError, match=f"^segment needs a onegan model, and {path} holds a coco-gan model; `zell"):
            load_task("segment", path, device="cpu")

    def test_the_state_of_a_run_is_no_model(self, tmp_path: Path) -> None:
        from zellige.engine.checkpoint.file import write_checkpoint

        path = tmp_path / "state.safetensors"
        write_checkpoint(path, {"a": torch.zeros(1)}, system="onegan", config={}, details={"progress": {}})
        with pytest.raises(UnknownModelError, match="the state of a training run"):
            zellige.load(path)


class TestGeneration:
    @PRECISIONS
    def test_an_image_does_not_depend_on_how_many_are_made(self, onegan: OneGanModel, precision: str) -> None:
        loaded = onegan(precision)
        many = loaded.generate(19, seed=2)
        assert many.shape == (19, 64, 64, 3) and many.dtype == np.uint8
        for count in (1, 2, 7, 17):
            assert (loaded.generate(count, seed=2) == many[:count]).all()
        assert (loaded.generate(2, seed=3) != many[:2]).any()

    def test_chosen_classes_keep_the_pose(self, onegan: OneGanModel) -> None:
        loaded = onegan()
        latents = [subject.draw_latents(loaded.config, 5, count)[0] for count in (2, 4)]
        assert (latents[0] == latents[1][:2]).all()
        images = loaded.generate(2, seed=5, child=6, parent=0)
        assert (loaded.generate(4, seed=5, child=[6, 6, 1, 1], parent=0)[:2] == images).all()
        assert (loaded.generate(2, seed=5, child=5, parent=0) != images).any()
        assert (loaded.generate(2, seed=5, child=6, parent=1) != images).any()

    def test_the_background_is_the_parents_unless_it_is_chosen(self, onegan: OneGanModel) -> None:
        loaded = onegan()
        images = loaded.generate(2, child=6, parent=1)
        assert (loaded.generate(2, child=6, parent=1, background=1) == images).all()
        assert (loaded.generate(2, child=6, parent=1, background=2) != images).any()

    def test_the_background_may_be_a_childs(self, onegan: OneGanModel) -> None:
        loaded = onegan(background_classes="child")
        assert (loaded.generate(2, child=6) == loaded.generate(2, child=6, background=6)).all()

    def test_what_is_not_chosen_is_paired_as_in_training(self) -> None:
        config, shares = tiny(), np.random.default_rng(0).random((400, 2))
        children, parents = draw_pairs(config, None, None, shares)
        assert set(zip(children, parents, strict=True)) == {(c, c * 3 // 7) for c in range(7)}
        for chosen in range(3):
            children, parents = draw_pairs(config, None, np.full(400, chosen), shares)
            assert set(parents) == {chosen} and set(children) == {c for c in range(7) if c * 3 // 7 == chosen}
        _, parents = draw_pairs(config, np.full(400, 6), None, shares)
        assert set(parents) == {2}

    def test_parents_that_training_drew_apart_are_drawn_apart(self) -> None:
        shares = np.random.default_rng(0).random((400, 2))
        pairs = draw_pairs(tiny(tie_parents=False), None, None, shares)
        assert len(set(zip(*pairs, strict=True))) == 21
        assert len(set(draw_pairs(tiny(tie_parents=False), None, np.zeros(400, np.int64), shares)[0])) == 7

    def test_new_images_like_others_have_their_classes(self, onegan: OneGanModel) -> None:
        loaded, images = onegan(), pictures(2)
        found, made = loaded.cluster(images), loaded.like(images, 3, seed=4)
        assert made.shape == (2, 3, 64, 64, 3)
        for k in range(2):
            chosen = {"child": int(found.child[k]), "parent": int(found.parent[k])}
            assert (made[k] == loaded.generate(3, seed=4, **chosen)).all()

    @pytest.mark.parametrize("kind", ["child", "parent", "background"])
    def test_classes_out_of_range_are_refused(self, onegan: OneGanModel, kind: str) -> None:
        many = {"child": 7}.get(kind, 3)
        for value in (-1, many, [0, many]):
            wrong = value[1] if isinstance(value, list) else value
            sentence = f"has no {kind} class {wrong}; its {many} are 0 to {many - 1}$"
            with pytest.raises(TaskError, match=sentence):
                onegan().generate(2, **{kind: value})

    @pytest.mark.parametrize("value", [1.5, [1, 2, 3], [[1, 2]], True])
    def test_what_is_no_class_is_refused(self, onegan: OneGanModel, value: Any) -> None:
        with pytest.raises(TaskError, match=r"^child must be a class, or 2 of them, one an image; got "):
            onegan().generate(2, child=value)

    def test_no_images_and_negative_seeds_are_refused(self, onegan: OneGanModel) -> None:
        loaded = onegan()
        for task in (loaded.generate, lambda *a: loaded.like(pictures(1), *a)):
            with pytest.raises(SizeError, match="^0 images cannot be generated; ask for 1 or more$"):
                task(0)
            with pytest.raises(SizeError, match="^the seed must be 0 or more, not -1$"):
                task(1, -1)


class TestRuntimes:
    def test_images_come_as_arrays_tensors_or_floats(self, onegan: OneGanModel) -> None:
        loaded = onegan()
        pixels = loaded.generate(3, seed=4)
        tensor, floats = loaded.generate(3, seed=4, as_="torch"), loaded.generate(3, seed=4, as_="float")
        assert (tensor.numpy() == pixels).all() and not tensor.is_inference()
        assert (floats.shape, floats.dtype) == ((3, 3, 64, 64), torch.float32)
        rounded = ((floats.permute(0, 2, 3, 1) + 1) * 127.5).round().byte()
        assert (rounded.int() - tensor.int()).abs().max() <= 1 and len(floats.unique()) > 256

    def test_warming_changes_no_image(self, onegan: OneGanModel) -> None:
        loaded = onegan()
        pixels = loaded.generate(9, seed=4)
        loaded.warm([1, 9])
        assert (loaded.generate(9, seed=4) == pixels).all()

    def test_onnx_runtime_makes_the_same_images(self, onegan_file: ModelFile) -> None:
        for package in ("onnxruntime", "onnxscript"):
            pytest.importorskip(package)
        loaded = zellige.load(onegan_file(), device="cpu", runtime="onnx")
        assert loaded.precision == "fp32" and isinstance(loaded, OneGan)
        own = zellige.load(onegan_file(), device="cpu", precision="fp32")
        for count in (1, 5):
            found, wanted = (model.generate(count, seed=4).astype(int) for model in (loaded, own))
            assert abs(found - wanted).max() <= 1
        chosen = loaded.generate(2, child=6, parent=0, background=1).astype(int)
        assert abs(chosen - own.generate(2, child=6, parent=0, background=1)).max() <= 1

    def test_what_cannot_run_is_refused_in_a_sentence(self, onegan_file: ModelFile) -> None:
        for runtime, precision, sentence in (
            (
                "tensorrt",
                "auto",
                "^the runtime 'tensorrt' runs on CUDA devices, and not on cpu; use 'torch' or 'onnx'$",
            ),
            ("jax", "auto", "^there is no runtime 'jax'; use 'torch', 'onnx' or 'tensorrt'$"),
            ("onnx", "bf16", "^the runtime 'onnx' runs networks in fp32; take precision='fp32'"),
        ):
            with pytest.raises(DeviceError, match=sentence):
                zellige.load(onegan_file(), device="cpu", precision=precision, runtime=runtime)
        loaded = zellige.load(onegan_file(), device="cpu", precision="fp32")
        with pytest.raises(ShapeError, match="^as_ is 'jax'; it must be 'numpy', 'torch', 'cupy' or 'float'"):
            loaded.generate(1, as_="jax")  # type: ignore[arg-type]
        with pytest.raises(DeviceError, match="^CuPy arrays live on CUDA devices"):
            loaded.generate(1, as_="cupy")


class TestImages:
    @PRECISIONS
    def test_results_do_not_depend_on_the_batch(
        self, onegan: OneGanModel, precision: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        loaded, images = onegan(precision), pictures(7)
        tasks: dict[str, Callable[[np.ndarray], Any]] = {
            "reconstruct": lambda x: loaded.reconstruct(x).image,
            "segment": lambda x: np.stack(loaded.segment(x, soft=True)),
            "cluster": lambda x: loaded.cluster(x).child,
            "translate": lambda x: loaded.translate(x, 3),
            "inpaint": loaded.inpaint,
            "recompose": lambda x: loaded.recompose(x, images[:1]),
        }
        whole = {name: task(images) for name, task in tasks.items()}
        monkeypatch.setattr(OneGan, "batch", 3)
        for name, task in tasks.items():
            assert (task(images) == whole[name]).all(), name
            assert (task(images[4:5]) == whole[name][4:5]).all(), name

    @PRECISIONS
    def test_the_parts_of_a_reconstruction_compose_it(self, onegan: OneGanModel, precision: str) -> None:
        parts = onegan(precision).reconstruct(pictures())
        share = parts.mask[..., None] / 255
        assert np.abs(parts.background * (1 - share) + parts.foreground * share - parts.image).max() < 1.6
        assert parts.mask.min() < 128 <= parts.mask.max()

    @pytest.mark.parametrize(("mask", "shown", "level"), [(-200.0, "background", 0), (200.0, "foreground", 255)])
    def test_mask_0_shows_the_background_and_mask_1_the_foreground(
        self, onegan: OneGanModel, mask: float, shown: str, level: int
    ) -> None:
        loaded, images = onegan(mask=mask), pictures()
        parts = loaded.reconstruct(images)
        assert (parts.image == getattr(parts, shown)).all() and (parts.mask == level).all()
        assert all((found == level).all() for found in loaded.segment(images))

    @pytest.mark.parametrize("codes", ["vectors", "classes"])
    def test_translation_with_the_own_style_is_the_reconstruction(self, onegan: OneGanModel, codes: str) -> None:
        loaded, images = onegan(reconstruction_codes=codes), pictures()
        assert (loaded.translate(images, loaded.styles(images)) == loaded.reconstruct(images).image).all()

    def test_translation_keeps_the_background(self, onegan: OneGanModel) -> None:
        loaded, images = onegan(mask=-200.0), pictures()  # only the background shows
        assert (loaded.translate(images, 5) == loaded.reconstruct(images).image).all()
        loaded = onegan()
        assert (loaded.translate(images, 5) != loaded.reconstruct(images).image).any()

    def test_translation_to_a_class_takes_its_vector(self, onegan: OneGanModel) -> None:
        loaded, images = onegan(), pictures()
        vectors = loaded.networks.child_vectors.weight.T[[5, 0, 2]].numpy()
        translated = loaded.translate(images, [5, 0, 2])
        assert (translated == loaded.translate(images, vectors)).all()
        assert (translated[:1] == loaded.translate(images[:1], 5)).all()

    def test_translation_refuses_other_styles(self, onegan: OneGanModel) -> None:
        with pytest.raises(TaskError, match=r"has no child class 7; its 7 are 0 to 6$"):
            onegan().translate(pictures(), 7)
        for shape in ((5,), (2, 5), (3, 4)):
            sentence = re.escape(f"style vectors must be [3, 5], one an image; got {list(shape)}")
            with pytest.raises(ShapeError, match=f"^{sentence}$"):
                onegan().translate(pictures(), np.zeros(shape, np.float32))

    def test_removal_is_the_background_of_the_reconstruction(self, onegan: OneGanModel) -> None:
        loaded, images = onegan(), pictures()
        assert (loaded.inpaint(images) == loaded.reconstruct(images).background).all()

    def test_clusters_are_the_likeliest_classes(self, onegan: OneGanModel) -> None:
        loaded, images = onegan(), pictures(5)
        found = loaded.cluster(images)
        x = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
        encoding = loaded.networks.encode(x)
        assert found.child.tolist() == encoding.child_logits.argmax(1).tolist()
        assert found.parent.tolist() == encoding.parent_logits.argmax(1).tolist()
        np.testing.assert_allclose(found.confidence, encoding.child_probabilities.max(1).values, rtol=1e-5)

    def test_recomposition_with_itself_is_the_reconstruction(self, onegan: OneGanModel) -> None:
        loaded, images = onegan(), pictures()
        assert (loaded.recompose(images, images) == loaded.reconstruct(images).image).all()

    @pytest.mark.parametrize(("mask", "source"), [(-200.0, 0), (200.0, 1)])
    def test_recomposition_takes_each_part_from_its_image(self, onegan: OneGanModel, mask: float, source: int) -> None:
        loaded, both = onegan(mask=mask), (pictures(), pictures(seed=1))
        assert (loaded.recompose(*both[::-1]) == loaded.reconstruct(both[source]).image).all()

    def test_one_background_serves_all_objects(self, onegan: OneGanModel) -> None:
        loaded, place, objects = onegan(), pictures(1, seed=1), pictures()
        assert (loaded.recompose(objects, place) == loaded.recompose(objects, np.repeat(place, 3, 0))).all()
        with pytest.raises(ShapeError, match="^2 backgrounds do not go with 3 objects; give as many, or one backgrou"):
            loaded.recompose(objects, pictures(2))


class TestMasks:
    def test_hard_is_soft_by_a_threshold_and_soft_is_the_reconstructions(self, onegan: OneGanModel) -> None:
        loaded, images = onegan(), pictures()
        soft, hard = (np.stack(loaded.segment(images, soft=kind)) for kind in (True, False))
        assert (soft == loaded.reconstruct(images).mask).all()
        assert (hard == np.where(soft >= 128, 255, 0)).all() and 0 < (hard == 255).mean() < 1

    def test_masks_have_the_sizes_of_their_images(self, onegan: OneGanModel) -> None:
        images = [pictures(1)[0, :40, :50], pictures(1, side=200)[0, :, :90], pictures(1)[0]]
        masks = onegan(mask=200.0).segment(images)
        assert [mask.shape for mask in masks] == [(40, 50), (200, 90), (64, 64)]
        assert (masks[0][:, 5:45] == 255).all() and np.count_nonzero(masks[0]) == 40 * 40
        assert (masks[1][55:145] == 255).all() and np.count_nonzero(masks[1]) == 90 * 90

    def test_files_arrays_and_squares_give_the_same(self, onegan: OneGanModel, tmp_path: Path) -> None:
        loaded, image = onegan(), pictures(1)[0, :50]
        Image.fromarray(image).save(tmp_path / "a.png")
        by_array, by_file = loaded.segment([image]), loaded.segment([tmp_path / "a.png"])
        cut = Squares(loaded.read("images", [image]).pixels, [(50, 64)])
        assert (by_array[0] == by_file[0]).all() and (by_array[0] == loaded.segment(cut)[0]).all()

    def test_the_images_given_stay_as_they_are(self, onegan: OneGanModel) -> None:
        loaded, images = onegan(), pictures()
        before = images.copy()
        loaded.translate(images, 1)
        loaded.segment(images)
        assert (images == before).all()


@PRECISIONS
def test_both_precisions_agree_and_repeat(onegan: OneGanModel, precision: str) -> None:
    images = pictures()
    exact, found, again = (onegan(kind).reconstruct(images).image for kind in ("fp32", precision, precision))
    assert (found == again).all()
    # The root mean square of what bfloat16 changes, in steps of a byte.
    assert np.sqrt(np.mean((exact.astype(float) - found) ** 2)) < 4
