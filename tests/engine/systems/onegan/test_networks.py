from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zellige.engine.systems.onegan.config import OneGanConfig
from zellige.engine.systems.onegan.networks import (
    BackgroundDiscriminator,
    Composite,
    ObjectDiscriminator,
    OneGanNetworks,
)

from .tiny_onegan import drawn, every_choice, images, normal, one_thread, parameters, tiny, trained

__all__ = ["one_thread"]


class TestPublishedSizes:
    @pytest.mark.parametrize(("affine", "millions"), [("channel", 144.0), ("element", 171.0)])
    def test_parameters_of_all_networks(self, affine: Any, millions: float) -> None:
        config = OneGanConfig(norm_affine=affine)
        builds = (OneGanNetworks, ObjectDiscriminator, BackgroundDiscriminator)
        total = sum(parameters(lambda build=build: build(config)) for build in builds)
        assert total / 1e6 == pytest.approx(millions, abs=0.05)

    def test_parameters_of_the_generators_with_their_tables(self) -> None:
        with torch.device("meta"):
            network = OneGanNetworks(OneGanConfig())
        background = nn.ModuleList([network.background, network.background_vectors])
        foreground = nn.ModuleList([network.foreground, network.child_vectors, network.parent_vectors])
        counts = [parameters(lambda part=part: part) / 1e6 for part in (background, foreground)]
        assert counts == pytest.approx([16.9, 17.0], abs=0.05)

    @every_choice
    def test_every_choice_generates_reconstructs_and_learns(self, chosen: dict[str, Any]) -> None:
        config = tiny(**chosen)
        network, x = trained(OneGanNetworks, config), images(config)
        made, again = network.generate(drawn(network)), network.reconstruct(x, beta=torch.rand(2), sample=True)
        for composite in (made, again):
            assert composite.image.shape == composite.foreground.shape == composite.background.shape == x.shape
            assert composite.mask.shape == (2, 1, *x.shape[2:])
            assert composite.image.isfinite().all()
        (made.image.mean() + again.image.mean()).backward()
        assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)

    @torch.no_grad()
    def test_pre_images_of_generators_and_bypasses_stand_in_for_each_other(self) -> None:
        network, x = trained(OneGanNetworks), images(tiny())
        codes, encoding = drawn(network), network.encode(x)
        made = network.foreground.pre_image(codes.parent, codes.latent)
        read = network.background_encoder(x, network.reconstruct(x).mask)
        assert made.shape == encoding.bypass.shape == read.shape
        assert network.background(encoding.bypass).shape == network.background(made).shape == x.shape


class TestPathG:
    @pytest.mark.parametrize(("bias", "shown"), [(-200.0, "background"), (200.0, "foreground")])
    @torch.no_grad()
    def test_mask_0_is_exactly_the_background_and_mask_1_the_foreground(self, bias: float, shown: str) -> None:
        network = trained(OneGanNetworks)
        nn.init.zeros_(network.foreground.to_mask.weight)
        nn.init.constant_(network.foreground.to_mask.bias, bias)
        composite = network.generate(drawn(network))
        assert torch.equal(composite.image, getattr(composite, shown))

    @torch.no_grad()
    def test_the_image_is_composed_by_the_mask(self) -> None:
        composite = (network := trained(OneGanNetworks)).generate(drawn(network))
        expected = composite.background * (1 - composite.mask) + composite.foreground * composite.mask
        torch.testing.assert_close(composite.image, expected)

    @torch.no_grad()
    def test_the_call_makes_the_same_image_at_once(self) -> None:
        network = trained(OneGanNetworks)
        classes = network.draw(3, torch.Generator().manual_seed(0))
        torch.testing.assert_close(network(*classes), network.generate(network.codes(*classes)).image)

    @torch.no_grad()
    def test_the_background_follows_the_parent_the_child_or_a_choice(self) -> None:
        child, parent = torch.tensor([6, 5]), torch.tensor([1, 2])
        for tie, classes in (("parent", parent), ("child", child)):
            network = trained(OneGanNetworks, tiny(background_classes=tie))
            codes = network.codes(child, parent, normal(2, 6))
            assert torch.equal(codes.background, network.background_vectors(classes))
        chosen = torch.tensor([0, 0])
        codes = network.codes(child, parent, normal(2, 6), chosen)
        assert torch.equal(codes.background, network.background_vectors(chosen))

    def test_parents_are_tied_to_children_as_floor_of_their_share(self) -> None:
        network = trained(OneGanNetworks)
        child, parent, latent = network.draw(200, torch.Generator().manual_seed(0))
        assert {(c, p) for c, p in zip(child.tolist(), parent.tolist(), strict=True)} == {
            (c, c * 3 // 7) for c in range(7)
        }
        assert latent.shape == (200, 6) and latent.std().item() == pytest.approx(1, abs=0.1)

    def test_parents_may_be_drawn_by_themselves(self) -> None:
        network = trained(OneGanNetworks, tiny(tie_parents=False))
        child, parent, _ = network.draw(500, torch.Generator().manual_seed(0))
        assert len(set(zip(child.tolist(), parent.tolist(), strict=True))) == 21

    @torch.no_grad()
    def test_runs_and_starts_repeat_bit_for_bit(self) -> None:
        first, second = (trained(OneGanNetworks, seed=3) for _ in range(2))
        assert torch.equal(first(*first.draw(2, torch.Generator().manual_seed(1))),
                           second(*second.draw(2, torch.Generator().manual_seed(1))))  # fmt: skip

    def test_it_exports_with_any_batch(self) -> None:
        network = trained(OneGanNetworks).eval()
        batch = torch.export.Dim("batch")
        arguments = network.draw(2, torch.Generator().manual_seed(0))
        program = torch.export.export(network, arguments, dynamic_shapes=[{0: batch}] * 3)
        other = network.draw(5, torch.Generator().manual_seed(1))
        torch.testing.assert_close(program.module()(*other), network(*other), rtol=0, atol=1e-6)


class TestPathR:
    @pytest.mark.parametrize("beta", [0.0, torch.zeros(2)], ids=["number", "samples"])
    @torch.no_grad()
    def test_at_beta_0_known_codes_give_path_g(self, beta: Any) -> None:
        network, x = trained(OneGanNetworks), images(tiny())
        codes = drawn(network)
        made, again = network.generate(codes), network.decode(x, network.encode(x), codes, beta=beta)
        for part in ("image", "foreground", "background", "mask"):
            assert torch.equal(getattr(made, part), getattr(again, part))

    @pytest.mark.parametrize("beta", [1.0, torch.ones(2)], ids=["number", "samples"])
    @torch.no_grad()
    def test_at_beta_1_pose_and_background_class_have_no_effect(self, beta: Any) -> None:
        network, x = trained(OneGanNetworks), images(tiny())
        own = network.reconstruct(x)
        other = replace(own.codes, latent=normal(2, 6), background=normal(2, 3))
        assert own.encoding is not None
        assert torch.equal(network.decode(x, own.encoding, other, beta=beta).image, own.image)

    @torch.no_grad()
    def test_every_sample_is_mixed_by_its_own_factor(self) -> None:
        network, x = trained(OneGanNetworks), images(tiny())
        mixed = network.reconstruct(x, beta=torch.tensor([0.0, 1.0])).image
        generated, copied = (network.reconstruct(x, beta=beta).image for beta in (0.0, 1.0))
        assert torch.equal(mixed, torch.stack([generated[0], copied[1]]))

    @torch.no_grad()
    def test_foreground_and_background_may_be_mixed_apart(self) -> None:
        network, x = trained(OneGanNetworks), images(tiny())
        mixed = network.reconstruct(x, beta=1.0, background_beta=0.0)
        assert torch.equal(mixed.foreground, network.reconstruct(x, beta=1.0).foreground)
        assert torch.equal(mixed.background, network.reconstruct(x, beta=0.0).background)

    @pytest.mark.parametrize(("mix", "same"), [("shared", True), ("separate", False)])
    def test_training_draws_factors_as_configured(self, mix: Any, same: bool) -> None:
        first, second = trained(OneGanNetworks, tiny(mix=mix)).draw_mix(500, torch.Generator().manual_seed(0))
        assert torch.equal(first, second) == same
        assert 0 <= first.min() < 0.05 and 0.95 < first.max() <= 1

    @torch.no_grad()
    def test_the_mask_is_read_by_the_background_encoder(self) -> None:
        network, x = trained(OneGanNetworks), images(tiny())
        composite = network.reconstruct(x)
        expected = network.background(network.background_encoder(x, composite.mask)).tanh()
        assert torch.equal(composite.background, expected)

    @torch.no_grad()
    def test_means_are_codes_and_samples_are_drawn_around_them(self) -> None:
        network, x = trained(OneGanNetworks), images(tiny())
        encoding = network.encode(x)
        codes = network.codes_of(encoding)
        assert torch.equal(codes.child, encoding.child.mean) and torch.equal(codes.parent, encoding.parent.mean)
        assert torch.equal(codes.latent, encoding.latent.mean)
        assert torch.equal(codes.background, network.background_vectors(encoding.parent_probabilities))
        first, again, other = (
            network.codes_of(encoding, sample=True, random=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
        )
        for part in ("child", "parent", "latent"):
            assert torch.equal(getattr(first, part), getattr(again, part))
            assert not torch.equal(getattr(first, part), getattr(other, part))

    @torch.no_grad()
    def test_class_probabilities_may_be_the_codes(self) -> None:
        network, x = trained(OneGanNetworks, tiny(reconstruction_codes="classes")), images(tiny())
        encoding = network.encode(x)
        codes = network.codes_of(encoding)
        assert torch.equal(codes.child, network.child_vectors(encoding.child_probabilities))
        assert torch.equal(codes.parent, network.parent_vectors(encoding.parent_probabilities))

    @torch.no_grad()
    def test_translation_with_the_own_style_reproduces_the_reconstruction(self) -> None:
        network, x = trained(OneGanNetworks), images(tiny())
        own = network.reconstruct(x)
        assert own.encoding is not None
        translated = network.decode(x, own.encoding, replace(own.codes, child=own.encoding.child.mean))
        assert torch.equal(translated.image, own.image)

    @torch.no_grad()
    def test_translation_keeps_the_background_under_the_first_mask(self) -> None:
        network, x = trained(OneGanNetworks), images(tiny())
        own = network.reconstruct(x)
        assert own.encoding is not None
        codes = replace(own.codes, child=network.child_vectors(torch.tensor([4, 2])))
        kept = network.decode(x, own.encoding, codes, mask=own.mask)
        assert torch.equal(kept.background, own.background)
        assert not torch.equal(kept.foreground, own.foreground)
        assert not torch.equal(network.decode(x, own.encoding, codes).background, own.background)

    @torch.no_grad()
    def test_an_object_moves_to_the_background_of_another_image(self) -> None:
        network, here, there = trained(OneGanNetworks), images(tiny()), images(tiny(), seed=1)
        place, thing = network.reconstruct(there), network.reconstruct(here)
        assert thing.encoding is not None
        composite = network.decode(there, thing.encoding, thing.codes, mask=place.mask)
        assert torch.equal(composite.background, place.background)
        assert torch.equal(composite.foreground, thing.foreground) and torch.equal(composite.mask, thing.mask)

    def test_it_exports(self) -> None:
        class Path(nn.Module):
            def __init__(self, network: OneGanNetworks) -> None:
                super().__init__()
                self.network = network

            def forward(self, x: Tensor) -> Composite:
                return self.network.reconstruct(x)

        path, x = Path(trained(OneGanNetworks).eval()), images(tiny())
        composite = torch.export.export(path, (x,)).module()(x)
        torch.testing.assert_close(composite.background, path(x).background, rtol=0, atol=1e-6)


class TestPrecision:
    @pytest.mark.parametrize("path", ["generate", "reconstruct"])
    def test_autocast_to_bfloat16_gives_float32_images_and_gradients(self, path: str) -> None:
        network, x = trained(OneGanNetworks), images(tiny())
        run: Callable[[], Composite] = {
            "generate": lambda: network.generate(drawn(network)),
            "reconstruct": lambda: network.reconstruct(x, beta=torch.tensor([0.3, 0.6])),
        }[path]
        exact = run()
        with torch.autocast("cpu", torch.bfloat16):
            composite = run()
        for part in ("image", "foreground", "background", "mask"):
            assert getattr(composite, part).dtype == torch.float32
            # Measured over four seeds: at most 0.013.
            assert (getattr(composite, part) - getattr(exact, part)).square().mean().sqrt() < 0.02
        composite.image.square().mean().backward()
        assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)

    @torch.no_grad()
    def test_all_weights_may_be_bfloat16(self) -> None:
        network, x = trained(OneGanNetworks), images(tiny())
        exact = network.reconstruct(x, beta=0.5).image
        lower = network.bfloat16().reconstruct(x, beta=0.5).image
        assert lower.dtype == torch.float32 and (lower - exact).square().mean().sqrt() < 0.02
        assert network(*network.draw(2, torch.Generator().manual_seed(0))).dtype == torch.bfloat16

    @torch.no_grad()
    def test_images_in_either_memory_order_give_the_same(self) -> None:
        network, x = trained(OneGanNetworks), images(tiny())
        by_pixel = x.contiguous(memory_format=torch.channels_last)
        assert torch.equal(network.reconstruct(x).image, network.reconstruct(by_pixel).image)
