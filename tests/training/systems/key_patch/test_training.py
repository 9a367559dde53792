"""A step updates what it should by the recipe's ratio and objective, and a run goes on as if never stopped."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zellige.engine.checkpoint.file import read_header, read_tensors
from zellige.engine.library import load
from zellige.errors import UnknownRecipeError
from zellige.kernels.op.levels import values_of
from zellige.training.loop import train
from zellige.training.recipe import with_settings
from zellige.training.systems.key_patch.items import jittered
from zellige.training.systems.key_patch.recipe import KeyPatchRecipe
from zellige.training.systems.key_patch.recipes import RECIPES
from zellige.training.systems.key_patch.training import KeyPatchTraining, union_masks

from .tiny_key_patch import Blocks, batch, picture, tiny, training


def moved(run: KeyPatchTraining, progress: float = 0.0) -> set[str]:
    """Names of the networks that a step changes."""
    parts = {"encoder": run.networks.encoder, "image": run.networks.image, "critic": run.critic}
    parts |= {"mask": run.networks.mask} if run.networks.mask is not None else {}
    before = {name: [p.detach().clone() for p in part.parameters()] for name, part in parts.items()}
    run.step(batch(run), progress)
    return {
        name for name, part in parts.items()
        if not all(torch.equal(a, b) for a, b in zip(before[name], part.parameters(), strict=True))
    }  # fmt: skip


def undecided(run: KeyPatchTraining) -> KeyPatchTraining:
    """With a D that says 1/2 of everything."""
    for weight in run.critic.last.parameters():
        torch.nn.init.zeros_(weight)
    return run


@pytest.mark.parametrize(("objective", "terms"), [("composites", 4), ("plain", 2)])
def test_d_starts_at_ln_2_a_term(objective: str, terms: int) -> None:
    run = undecided(training(objective=objective))
    metrics = run.step(batch(run), 0.0)
    assert sum(float(v) for k, v in metrics.items() if k.startswith("critic")) == pytest.approx(terms * math.log(2))


def test_a_step_moves_every_network() -> None:
    assert moved(training()) == {"encoder", "mask", "image", "critic"}


def test_every_second_step_moves_d_alone() -> None:
    run = training(ratio="2:1", steps=10)
    assert moved(run, 0.0) == {"encoder", "mask", "image", "critic"}
    assert moved(run, 0.1) == {"critic"}
    assert moved(run, 0.2) == {"encoder", "mask", "image", "critic"}


def test_d_once_and_the_generator_twice() -> None:
    run = training(ratio="1:2")
    run.step(batch(run), 0.0)
    assert int(run.updates) == 2


def test_without_an_objective_d_stays() -> None:
    run = training({"wiring": "encoding"}, objective="none", spatial=(0, 0), appearance=(0, 0), reconstruction=1.0)
    assert moved(run) == {"encoder", "image"}


def test_early_composites_are_two_more_fakes() -> None:
    run = training(early_composites=True)
    assert len([name for name in run.step(batch(run), 0.0) if name.startswith("critic")]) == 6


def test_z_is_drawn_for_every_step() -> None:
    run = training({"wiring": "encoder", "z_dim": 6}, spatial=(0, 0), appearance=(0, 0))
    state = run.random.get_state()
    assert moved(run) == {"encoder", "image", "critic"} and not torch.equal(state, run.random.get_state())


def test_noise_on_what_d_sees_falls_to_0() -> None:
    run, image = training(instance_noise=0.5), torch.zeros(2, 3, 64, 64)
    run.critic.eval()
    run.step(batch(run), 0.5)
    assert run._noise == 0.25 and not torch.equal(run._judge(image)[:1], run._judge(image)[1:])
    run.step(batch(run), 1.0)
    run.critic.eval()
    assert torch.equal(run._judge(image), run._judge(image))


def test_noise_on_patches_stays_in_their_range() -> None:
    run = training(patch_noise=0.5)
    seen: list[torch.Tensor] = []
    run.networks.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    run.step(batch(run), 0.0)
    plain = training()
    plain.networks.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    plain.step(batch(plain), 0.0)
    noise = seen[0] - seen[-1]
    inside = seen[-1].abs() < 0.1
    assert seen[0].abs().max() == 1 and 0.4 < float(noise[inside].std()) < 0.55


def test_d_sees_changed_images() -> None:
    run = training(augment=("colour", "translation", "cutout"))
    seen: list[torch.Tensor] = []
    run.critic.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    given = batch(run)
    metrics = run.step(given, 0.0)
    assert all(value.isfinite() for value in metrics.values())
    real = values_of(given[0])
    assert not torch.equal(seen[0], real) and bool((seen[0] == 0).any())  # the first are the real ones


def test_masks_of_boxes_count_an_overlap_once() -> None:
    mask = union_masks(torch.tensor([[[0, 0, 10, 10], [5, 5, 10, 10]], [[3, 4, 1, 2], [3, 4, 1, 2]]]), (20, 20))
    assert mask.shape == (2, 1, 20, 20) and mask.sum((1, 2, 3)).tolist() == [175, 2] and mask[1, 0, 4:6, 3].sum() == 2


def test_learning_a_batch_keeps_its_patches() -> None:
    run = training(objective="plain", ema=0.0, l1="element", lr=5e-3, spatial=(100.0, 100.0), appearance=(100.0, 100.0))
    given = batch(run)
    first = run.step(given, 0.0)
    for _ in range(40):
        last = run.step(given, 0.0)
    assert last["spatial"] < 0.7 * first["spatial"] and last["appearance"] < first["appearance"]


class TestItems:
    def test_an_item_is_an_image_another_its_boxes_and_patches(self) -> None:
        items = tiny().items(Blocks(), 0)
        image, other, boxes, patches = items[5]
        assert image.shape == other.shape == (3, 64, 64) and boxes.shape == (3, 4) and patches.shape == (3, 3, 64, 64)
        assert not torch.equal(image, other)

    def test_half_are_mirrored_with_their_boxes(self) -> None:
        items, mirrored = tiny(selection="random").items(Blocks(), 0), 0
        for index in range(24):
            image, _, boxes, patches = items[index]
            x, y = boxes[0, :2].tolist()
            corner = image[:, y, x].int(), patches[0, :, 0, 0].int()
            assert (corner[0] - corner[1]).abs().max() <= 40  # bicubic at the corner
            mirrored += bool((image.permute(1, 2, 0).numpy()[:, ::-1] == picture(index)).all())
        assert 5 < mirrored < 19

    def test_an_item_depends_on_its_number_alone(self) -> None:
        first, second = tiny().items(Blocks(), 0), tiny().items(Blocks(), 0)
        for k in range(3):
            second[k]
        assert all(torch.equal(a, b) for a, b in zip(first[7], second[7], strict=True))

    def test_with_replacement_patches_repeat(self) -> None:
        items = tiny(candidates=2, replacement=True, selection="random").items(Blocks(), 0)
        assert all(len(np.unique(items[k][2].numpy(), axis=0)) < 3 for k in range(5))

    def test_hues_turn_and_white_stays(self) -> None:
        plain, turned = (tiny(selection="random", hue=hue).items(Blocks(), 0)[3][0] for hue in (0.0, 60.0))
        white = (plain == 255).all(0)
        assert (turned[:, (turned == 255).all(0)] == 255).all() and (turned == 255).all(0).sum() == white.sum()
        assert not torch.equal(plain.sort(0).values, turned.sort(0).values)

    def test_random_patches_are_others_for_every_item(self) -> None:
        items = tiny(selection="random").items(Blocks(), 0)
        assert not torch.equal(items[0][2], items[1][2])

    def test_borders_move_by_up_to_a_share_of_the_sides(self) -> None:
        random = np.random.default_rng(0)
        given = np.repeat([[20, 24, 20, 10]], 500, axis=0)
        boxes = jittered(given, 0.2, random, 64)
        begin, end = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
        for found, middle, most in ((begin[:, 0], 20, 4), (begin[:, 1], 24, 2), (end[:, 0], 40, 4), (end[:, 1], 34, 2)):
            assert set(found) == set(range(middle - most, middle + most + 1))
        assert jittered(given, 0.0, random, 64) is given

    def test_borders_that_move_stay_in_the_picture(self) -> None:
        given = np.repeat([[0, 50, 8, 14], [56, 0, 8, 4]], 300, axis=0)
        boxes = jittered(given, 0.5, np.random.default_rng(0), 64)
        assert boxes[:, :2].min() == 0 and (boxes[:, :2] + boxes[:, 2:]).max() == 64 and boxes[:, 2:].min() >= 4

    def test_a_share_of_the_images_has_random_patches(self) -> None:
        def differ(share: float) -> int:
            first, second = (tiny(random_share=share).items(Blocks(), 0) for _ in range(2))
            keys = tiny().items(Blocks(), 0)
            assert torch.equal(first[3][2], second[3][2])
            return sum({tuple(box) for box in first[k][2].tolist()} != {tuple(box) for box in keys[k][2].tolist()}
                       for k in range(40))  # fmt: skip

        assert 8 < differ(0.5) < 36
        assert differ(1.0) == 40


class TestRuns:
    RUN = tiny(batch=2, steps=6, ratio="2:1", selection="random", log_every=1, checkpoint_every=3, sample_every=6)

    def run(self, out: Path, **options: Any) -> dict[str, Any]:
        return train(self.RUN, Blocks(), out, workers=0, **options)  # type: ignore[arg-type]

    def test_six_steps_equal_three_and_three_more(self, tmp_path: Path) -> None:
        class Breaking(Blocks):
            def image(self, index: int) -> np.ndarray:
                if index == 6:  # of the fourth step
                    raise OSError("the disk is gone")
                return super().image(index)

        whole, parts = tmp_path / "whole", tmp_path / "parts"
        self.run(whole)
        with pytest.raises(OSError, match="the disk is gone"):
            train(self.RUN, Breaking(), parts, workers=0)  # type: ignore[arg-type]
        self.run(parts, resume=True)
        for name in ("model.safetensors", "state.safetensors"):
            there, here = (read_tensors(read_header(out / name)) for out in (whole, parts))
            assert there.keys() == here.keys()
            assert [key for key in there if not torch.equal(there[key], here[key])] == []

    def test_its_model_composes(self, tmp_path: Path) -> None:
        self.run(tmp_path)
        model = load(tmp_path / "model.safetensors", "cpu", "fp32", rewrite=False)
        assert model.complete([picture(3)]).image.shape == (1, 64, 64, 3)
        assert (tmp_path / "samples/0000006.png").is_file()


class TestRecipes:
    def test_the_published_ones_have_the_codes_numbers(self) -> None:
        for name, resolution in (("key-patch-celeba", 128), ("key-patch-celeba-hq", 256)):
            recipe = RECIPES[name]
            assert (recipe.model.width, recipe.model.encoding, recipe.model.kernel, recipe.model.z_dim) == (
                64,
                256,
                4,
                0,
            )
            assert (recipe.batch, recipe.lr, recipe.betas, recipe.epochs) == (64, 2e-4, (0.5, 0.999), 25)
            assert (recipe.spatial, recipe.appearance, recipe.l1) == ((1e-2, 1e-4), (1e-2, 1e-4), "image")
            assert recipe.model.resolution == resolution
        assert RECIPES["key-patch-celeba"].steps == 25 * 3166 and RECIPES["key-patch-compcars"].batch == 32

    def test_baselines_differ_by_switches_of_the_same_code(self) -> None:
        one, two, three = (RECIPES[f"key-patch-baseline-{k}"] for k in (1, 2, 3))
        assert not one.model.has_mask and two.model.z_dim == 128 and three.objective == "none"
        assert RECIPES["key-patch-plain"].objective == "plain"
        for recipe in RECIPES.values():
            assert KeyPatchRecipe.model_validate(recipe.model_dump()) == recipe

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"model.wiring": "encoder"}, "without a mask decoder there is no L_S"),
            ({"candidates": 2}, "3 patches cannot be drawn from 2 candidates without replacement"),
            ({"objective": "none", "appearance": (0.0, 0.0)}, "nothing is left to learn images from"),
        ],
    )
    def test_what_no_run_can_be_is_refused(self, settings: dict[str, Any], said: str) -> None:
        with pytest.raises(UnknownRecipeError, match=said):
            with_settings(KeyPatchRecipe(), settings)
