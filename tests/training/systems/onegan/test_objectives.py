"""Every term of the sheet: its value, its weight, and which networks learn from it."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zellige.training.systems.onegan.objectives import ROUTES, Terms, reconstruction_terms
from zellige.training.systems.onegan.recipe import OneGanWeights
from zellige.training.systems.onegan.training import OneGanTraining

from .tiny_onegan import NONE, advance, batch, moved_by_a_step, one_thread, parts, training

__all__ = ["one_thread"]

GENERATORS = {"G_fg", "G_bg0", "G_bg1"}
ENCODERS = {"E_c", "E_p", "E_bg"}
# The sheet's column "updates".
LEARNERS = {
    "critic": {"D_c", "D_c_A"},
    "critic_child": {"D_c", "D_c_B"},
    "critic_background": {"D_bg", "D_bg_A"},
    "critic_auxiliary": {"D_bg", "D_bg_B"},
    "adversarial": GENERATORS | {"V_c", "V_p", "V_bg"},
    "background": {"G_bg0", "G_bg1", "V_bg"},
    "auxiliary": {"G_bg0", "G_bg1", "V_bg"},
    "child": {"G_fg", "V_c", "V_p", "D_c_B"},
    "parent": {"G_fg", "V_p", "E_p"},
    "vectors": {"V_c", "V_p", "V_bg"},
    "mask": {"G_fg", "V_c", "V_p"},
    "encoded_classes": {"E_c", "E_p"},
    "encoded_vectors": {"E_c", "E_p"},
    "encoded_mask": {"E_p", "G_fg"},
    "encoded_background": {"E_bg", "G_bg1"},
    "pixels": ENCODERS | GENERATORS,
    "features": ENCODERS | GENERATORS,
    "divergence": {"E_c", "E_p"},
    "background_pixels": {"E_bg", "G_bg1"},
    "background_features": {"E_bg", "G_bg1"},
    "again_adversarial": ENCODERS | GENERATORS,
    "again_background": ENCODERS | GENERATORS,
    "again_mask": {"E_p", "G_fg"},
}


def shares(*given: tuple[float, float]) -> Tensor:
    """A mask [1, 1, 64, 64] whose pixels have the given values, each for its share of the picture."""
    return torch.cat([torch.full((round(4096 * share),), float(value)) for share, value in given]).reshape(1, 1, 64, 64)


def free(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_()


def mask_of(run: OneGanTraining, mask: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let path G make this mask whatever the codes are."""
    generate = run.networks.generate

    def masked(codes: Any) -> Any:
        composite = generate(codes)
        return replace(composite, mask=0 * composite.mask + mask)

    monkeypatch.setattr(run.networks, "generate", masked)


class TestValues:
    @pytest.mark.parametrize(
        ("mask", "value"),
        [
            (shares((0.5, 1), (0.5, 0)), 0),
            (shares((1, 0.5)), 0.1),
            (shares((1, 0)), 0.6),
            (shares((1, 1)), 0.6),
            (shares((0.25, 1), (0.75, 0)), 0.3),
            (shares((0.5, 0.9), (0.5, 0.1)), 0.02),
        ],
    )
    def test_masks_are_regularised_as_the_sheet_says(self, mask, value, monkeypatch) -> None:
        run = training(weights=NONE | {"mask": 1})
        mask_of(run, mask, monkeypatch)
        metrics = advance(run)
        assert metrics["mask"].item() == pytest.approx(value, abs=1e-6)
        assert metrics["mask_share"].item() == pytest.approx(mask.mean().item(), abs=1e-6)

    def test_vectors_are_regularised_as_the_sheet_says(self) -> None:
        run = training(weights=NONE | {"vectors": 1})
        for table in ("V_c", "V_p", "V_bg"):
            for weight in run.learners[table]:
                nn.init.constant_(weight, 2)
        assert advance(run)["vectors"].item() == pytest.approx(4 * (5 + 4 + 3))

    def test_masks_of_real_images_are_regularised_alike(self) -> None:
        run = training(weights=NONE | {"again_mask": 1})
        nn.init.zeros_(run.networks.foreground.to_mask.weight)
        nn.init.constant_(run.networks.foreground.to_mask.bias, 50)
        assert advance(run)["again_mask"].item() == pytest.approx(0.6)

    def test_discriminators_tell_real_from_made_and_background_from_object(self) -> None:
        run = training(weights=NONE | {"critic": 1, "critic_background": 1, "critic_auxiliary": 1}, phases=(1, 1))
        images, places = (x.float() / 127.5 - 1 for x in batch(run))
        random = torch.Generator().manual_seed(0)
        with torch.no_grad():
            made = run.networks.generate(run.networks.codes(*run.networks.draw(3, random)))
            real, fake = run.objects(images).adversarial, run.objects(made.image).adversarial
            clean, painted, full = (run.backgrounds(x) for x in (places, made.background, images))
        metrics = advance(run)
        zeros, ones = torch.zeros_like, torch.ones_like
        bce = F.binary_cross_entropy_with_logits
        torch.testing.assert_close(metrics["critic"], bce(real, ones(real)) + bce(fake, zeros(fake)))
        a, b = clean.adversarial, painted.adversarial
        torch.testing.assert_close(metrics["critic_background"], bce(a, ones(a)) + bce(b, zeros(b)))
        a, b = clean.auxiliary, full.auxiliary
        torch.testing.assert_close(metrics["critic_auxiliary"], bce(a, ones(a)) + bce(b, zeros(b)))

    @pytest.mark.parametrize(("judged", "fakes"), [("made", 1), ("all", 3)])
    def test_discriminators_see_images_made_again_on_request(self, judged, fakes) -> None:
        run = training(weights=NONE | {"critic": 1}, judged=judged)
        seen: list[int] = []
        run.objects.register_forward_pre_hook(lambda module, arguments: seen.append(len(arguments[0])))
        advance(run)
        assert seen[0] == 3 * (1 + fakes + 1)

    def test_background_is_compared_only_where_no_object_is(self) -> None:
        values = []
        for bias in (-50.0, 50.0):  # no object, nothing but object
            run = training(weights=NONE | {"background_pixels": 1, "background_features": 1})
            nn.init.constant_(run.networks.foreground.to_mask.bias, bias)
            values.append(advance(run))
        assert values[0]["background_pixels"] > 0 and values[0]["background_features"] > 0
        assert values[1]["background_pixels"] == values[1]["background_features"] == 0


class TestRoutes:
    def test_every_term_has_a_weight_and_every_weight_is_tested(self) -> None:
        assert LEARNERS.keys() == OneGanWeights.model_fields.keys()
        routed = [name for names, _ in ROUTES for name in names]
        assert sorted(routed) == sorted(name for name in LEARNERS if not name.startswith("critic"))

    @pytest.mark.parametrize("name", LEARNERS)
    def test_a_term_moves_the_networks_of_its_column_and_no_other(self, name: str) -> None:
        assert moved_by_a_step(training(weights=NONE | {name: 1})) == LEARNERS[name]

    def test_all_terms_together_move_everything(self) -> None:
        run = training()
        assert moved_by_a_step(run) == parts(run).keys()

    @pytest.mark.parametrize("name", ["pixels", "parent"])
    def test_a_route_that_shares_its_graph_adds_to_the_gradient_of_the_others(self, name: str) -> None:
        gradients = []
        for weights in ({name: 1}, {"mask": 1, "again_mask": 1}, {name: 1, "mask": 1, "again_mask": 1}):
            run = training(weights=NONE | weights)
            advance(run)
            gradients.append([p.grad if p.grad is not None else torch.zeros_like(p) for p in run.learners["G_fg"]])
        for first, second, both in zip(*gradients, strict=True):
            torch.testing.assert_close(first + second, both, rtol=1e-3, atol=1e-6)

    def test_what_path_g_made_is_a_target_and_does_not_give_way(self) -> None:
        run = training()
        classes = run.networks.draw(2, run.random)
        made = run.networks.generate(run.networks.codes(*classes))
        codes = replace(made.codes, **{part: free(getattr(made.codes, part)) for part in ("child", "parent", "latent")})
        made = replace(made, mask=free(made.mask), background=free(made.background), codes=codes)
        terms, image = Terms(OneGanWeights()), made.image.detach()
        again = run.networks.reconstruct(image, beta=0.5)
        reconstruction_terms(terms, run.objects, run.backgrounds, image, again, (*classes[:2], made))
        terms.total().backward()
        targets = (made.mask, made.background, codes.child, codes.parent, codes.latent)
        assert all(target.grad is None for target in targets)
        assert run.networks.child_vectors.weight.grad is None

    def test_at_beta_0_bypasses_learn_nothing_from_pixels(self, monkeypatch) -> None:
        run = training(weights=NONE | {"pixels": 1})
        monkeypatch.setattr(run.networks, "draw_mix", lambda count, random: (torch.zeros(count),) * 2)
        assert moved_by_a_step(run) == {"E_c", "E_p", *GENERATORS}
        assert not any(p.grad.any() for p in run.networks.parent_encoder.bypass.parameters())

    def test_at_beta_1_pre_images_of_codes_learn_nothing_from_pixels(self, monkeypatch) -> None:
        run = training(weights=NONE | {"pixels": 1})
        monkeypatch.setattr(run.networks, "draw_mix", lambda count, random: (torch.ones(count),) * 2)
        assert moved_by_a_step(run) == {"G_fg", "G_bg1", *ENCODERS}
        assert not any(p.grad.any() for p in run.networks.foreground.pre_image.parameters())


class TestTerms:
    def test_total_is_the_weighted_sum(self) -> None:
        terms = Terms(OneGanWeights(mask=3, vectors=0.5))
        terms.add("mask", lambda: torch.tensor(2.0))
        terms.add("vectors", lambda: torch.tensor(8.0))
        terms.add("vectors", lambda: torch.tensor(4.0))
        assert terms.total() == 3 * 2 + 0.5 * 12 and terms.total(["mask"]) == 6 and terms.total(["parent"]) is None

    def test_term_of_weight_0_is_not_computed(self) -> None:
        terms = Terms(OneGanWeights(mask=0))
        terms.add("mask", lambda: pytest.fail("it was"))
        assert not terms.values and terms.total() is None
