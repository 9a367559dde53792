"""A training step of OneGAN: phases, optimisers, averaging, hard codes, and what it leaves for the model file."""

import numpy as np
import pytest
import torch
from torch import Tensor

from zellige.engine.systems.onegan.config import OneGanConfig
from zellige.engine.systems.onegan.networks import OneGanNetworks
from zellige.training.systems.onegan.recipe import OneGanWeights

from .tiny_onegan import advance, batch, moved_by_a_step, one_thread, parts, training

__all__ = ["one_thread"]

OF_CRITICS = {"critic", "critic_child", "critic_background", "critic_auxiliary"}
OF_PATH_G = {"adversarial", "background", "auxiliary", "child", "parent", "vectors", "mask"}
OF_MADE = {
    "encoded_classes", "encoded_vectors", "encoded_mask", "encoded_background", "pixels", "features", "divergence",
}  # fmt: skip
OF_REAL = {"background_pixels", "background_features", "again_adversarial", "again_background", "again_mask"}


class TestPhases:
    @pytest.mark.parametrize(
        ("progress", "phase", "terms"),
        [
            (0.0, 1, OF_CRITICS | OF_PATH_G | {"mask_share"}),
            (0.25, 2, OF_CRITICS | OF_PATH_G | OF_MADE | {"mask_share"}),
            (0.5, 3, OF_CRITICS | OF_PATH_G | OF_MADE | OF_REAL | {"mask_share", "again_mask_share"}),
        ],
    )
    def test_each_adds_its_terms_and_keeps_those_before(self, progress: float, phase: int, terms: set[str]) -> None:
        run = training(phases=(0.25, 0.5))
        metrics = advance(run, progress=progress)
        assert run.phase(progress) == phase and metrics.keys() == terms
        assert all(value.isfinite() and value.ndim == 0 for value in metrics.values())

    def test_they_end_just_before_the_next_begins(self) -> None:
        run = training(phases=(0.25, 0.5))
        assert [run.phase(progress) for progress in (0.249, 0.25, 0.499, 0.5, 1.0)] == [1, 2, 2, 3, 3]

    def test_in_the_first_only_the_parents_encoder_learns(self) -> None:
        run = training(phases=(1, 1))
        assert moved_by_a_step(run) == parts(run).keys() - {"E_c", "E_bg"}
        assert all(p.grad is None for p in run.networks.parent_encoder.bypass.parameters())


class TestStep:
    def test_a_seed_repeats_the_run(self) -> None:
        one, other = training(seed=3), training(seed=3)
        assert advance(one, 2) == advance(other, 2)
        assert all(map(torch.equal, one.average.state_dict().values(), other.average.state_dict().values()))

    def test_another_seed_is_another_run(self) -> None:
        assert advance(training(seed=3)) != advance(training(seed=4))

    def test_pixels_are_scaled_to_minus_one_to_one(self) -> None:
        run = training(phases=(1, 1))
        images, places = batch(run)
        images[0], images[1] = 0, 255
        seen: list[Tensor] = []
        run.objects.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
        run.step((images, places), 0.0)
        assert set(seen[0][0].flatten().tolist()) == {-1} and set(seen[0][1].flatten().tolist()) == {1}

    def test_what_path_g_makes_is_made_once(self) -> None:
        run = training()
        calls: list[int] = []
        run.networks.foreground.register_forward_hook(lambda *_: calls.append(1))
        advance(run)
        assert len(calls) == 3  # one a path

    @pytest.mark.parametrize(
        "chosen",
        [{"reconstruction_codes": "classes"}, {"mix": "separate"}, {"sigma": "softplus"}, {"resolution": 128}],
        ids=str,
    )
    def test_other_readings_of_the_paper_train(self, chosen) -> None:
        assert all(value.isfinite() for value in advance(training(model=chosen, batch=2)).values())

    def test_bfloat16_trains_and_is_close_to_float32(self) -> None:
        whole, half = (advance(training(model={"width": 2}, precision=precision)) for precision in ("fp32", "bf16"))
        for name in ("critic", "pixels", "mask", "encoded_classes", "vectors"):
            assert half[name].item() == pytest.approx(whole[name].item(), rel=0.1)


class TestOptimisers:
    def test_rates_and_moments_are_finegans(self) -> None:
        run = training()
        assert {name: o.param_groups[0]["lr"] for name, o in run.optimisers.items()} == {
            "critic": 2e-4, "generator": 2e-4,
        }  # fmt: skip
        assert {o.param_groups[0]["betas"] for o in run.optimisers.values()} == {(0.5, 0.999)}

    def test_every_parameter_is_in_one_list_and_the_class_head_in_both(self) -> None:
        run = training()
        lists = {name: {id(p) for p in o.param_groups[0]["params"]} for name, o in run.optimisers.items()}
        assert lists["critic"] & lists["generator"] == {id(p) for p in run.learners["D_c_B"]}
        assert lists["critic"] | lists["generator"] == {id(p) for values in parts(run).values() for p in values}

    @pytest.mark.parametrize(("progress", "share"), [(0.0, 1.0), (0.7, 1.0), (0.85, 0.5), (1.0, 0.0)])
    def test_rates_fall_linearly_at_the_end(self, progress: float, share: float) -> None:
        run = training(decay_from=0.7, phases=(1, 1))
        advance(run, progress=progress)
        for optimiser in run.optimisers.values():
            assert optimiser.param_groups[0]["lr"] == pytest.approx(share * 2e-4, abs=1e-12)


class TestAverage:
    @pytest.mark.parametrize(("ema", "step", "decay"), [(0.999, 1, 2 / 11), (0.999, 3, 4 / 13), (0.25, 3, 0.25)])
    def test_it_follows_generators_encoders_and_tables(self, ema: float, step: int, decay: float) -> None:
        run = training(ema=ema)
        advance(run, step - 1)
        before = {name: tensor.clone() for name, tensor in run.average.state_dict().items()}
        advance(run)
        now = run.networks.state_dict()
        assert before.keys() == now.keys()
        for name, tensor in run.average.state_dict().items():
            torch.testing.assert_close(tensor, decay * before[name] + (1 - decay) * now[name])

    @pytest.mark.parametrize(("storage", "dtype"), [("fp32", torch.float32), ("fp16", torch.float16)])
    def test_the_model_file_holds_it(self, storage, dtype) -> None:
        run = training(storage=storage)
        advance(run)
        tensors, config = run.model()
        assert OneGanConfig.model_validate(config) == run.recipe.model
        assert {tensor.dtype for tensor in tensors.values() if tensor.ndim > 1} == {dtype}
        networks = OneGanNetworks(run.recipe.model)
        networks.load_state_dict({name.removeprefix("networks."): tensor for name, tensor in tensors.items()})
        for ours, stored in zip(run.average.parameters(), networks.parameters(), strict=True):
            torch.testing.assert_close(stored, ours, rtol=1e-3, atol=1e-6)

    def test_samples_show_fixed_codes_then_the_last_images(self) -> None:
        run = training()
        first = run.samples()
        np.testing.assert_array_equal(first, run.samples())
        assert (first.dtype, first.shape) == (np.uint8, (4 * 66 - 2, 8 * 66 - 2, 3))
        images, places = batch(run)
        run.step((images, places), 0.0)
        sheet = run.samples()
        assert sheet.shape == (9 * 66 - 2, 8 * 66 - 2, 3)
        np.testing.assert_array_equal(sheet[4 * 66 : 5 * 66 - 2, 66:130], images[1].permute(1, 2, 0).numpy())

    def test_samples_leave_the_runs_random_numbers_alone(self) -> None:
        run = training()
        before = run.random.get_state()
        run.samples()
        assert torch.equal(run.random.get_state(), before)


class TestHardCodes:
    def test_they_are_those_that_the_child_head_is_least_sure_of(self) -> None:
        run = training(hard_choice=4)
        state = run.random.get_state()
        chosen = run._hard_codes(3)
        run.random.set_state(state)
        child, parent, latent = run.networks.draw(12, run.random)
        with torch.no_grad():
            made = run.networks.generate(run.networks.codes(child, parent, latent))
            sure = run.objects(made.foreground * made.mask).auxiliary.softmax(dim=1)[torch.arange(12), child]
        worst = sure.argsort()[:3]
        for found, drawn in zip(chosen, (child, parent, latent), strict=True):
            assert torch.equal(found, drawn[worst])

    def test_at_the_end_every_other_batch_has_them(self, monkeypatch) -> None:
        run = training(phases=(1, 1), hard_from=0.5, hard_choice=4, steps=8)
        draw, counts = run.networks.draw, []

        def counted(count, random):
            counts.append(count)
            return draw(count, random)

        monkeypatch.setattr(run.networks, "draw", counted)
        for step in range(8):
            run.step(batch(run, step), step / 8)
        assert counts == [3, 3, 3, 3, 12, 3, 12, 3]


def test_weights_of_the_sheet_are_the_defaults() -> None:
    weights = OneGanWeights().model_dump()
    assert {name: value for name, value in weights.items() if value != 1} == {
        "critic_background": 10, "background": 10, "again_background": 10, "vectors": 0.01, "divergence": 0.01,
    }  # fmt: skip
