from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from zellige.engine.layers.convolutions import PaddedConv
from zellige.engine.layers.precision import cast_maps
from zellige.engine.layers.spectral import plain_state
from zellige.engine.systems.coco_gan.config import CocoGanConfig
from zellige.engine.systems.coco_gan.critic import Discriminator, Head
from zellige.engine.systems.coco_gan.generator import ConditionalNorm, Generator
from zellige.engine.systems.coco_gan.spread import Window
from zellige.errors import LatticeError
from zellige.training.systems.coco_gan.training import assemble

PANORAMA = {"topology": "cylinder", "columns": 12, "patch": 64}
GENERATORS = {  # the published configuration of every micro patch side, and the panorama's
    "4": ({"patch": 4, "rows": 32, "columns": 32, "span": 16, "extra_blocks": 3}, 11_392_515),
    "8": ({"patch": 8, "rows": 16, "columns": 16, "span": 8, "extra_blocks": 1}, 11_225_091),
    "16": ({"patch": 16}, 11_225_091),
    "32": ({"patch": 32}, 11_392_515),
    "64": ({"patch": 64}, 11_504_067),
    "64, panorama": (PANORAMA, 11_514_179),
    "256": ({"patch": 256}, 11_727_171),
}
CRITICS = {
    "32": ({"patch": 16}, 9_449_281),
    "64": ({"patch": 32}, 9_842_881),
    "128": ({"patch": 64}, 9_920_897),
    "128, panorama": (PANORAMA, 9_921_409),
    "512": ({"patch": 256}, 10_076_929),
}
TINY = {
    "plane": {"rows": 3, "columns": 4, "patch": 8, "latent": 6, "width": 2, "critic_width": 2},
    "cylinder": {"topology": "cylinder", "rows": 3, "columns": 4, "patch": 4, "latent": 5, "width": 1},
    "torus": {"topology": "torus", "rows": 2, "columns": 5, "patch": 8, "latent": 3, "width": 3, "extra_blocks": 1},
}  # fmt: skip


def tiny(name: str = "plane", **chosen: Any) -> CocoGanConfig:
    return CocoGanConfig(**{"critic_width": 1, **TINY[name], **chosen})


def parameters(build: Callable[[], nn.Module]) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build().parameters())


def trained(module: nn.Module, seed: int = 0) -> nn.Module:
    """Weights, biases and batch statistics away from their start, as after training; in evaluation."""
    random = torch.Generator().manual_seed(seed)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if name.endswith("bias"):
            nn.init.normal_(tensor, 0.5 if "scale" in name else 0, 0.3, generator=random)
        elif name.endswith("running_mean"):
            nn.init.normal_(tensor, 0, 0.3, generator=random)
        elif name.endswith("running_var"):
            nn.init.uniform_(tensor, 0.3, 2, generator=random)
    return module.eval().requires_grad_(False)


def inputs(config: CocoGanConfig, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    places = torch.rand(2, count, generator=random) * 4
    coordinates = config.lattice.micro(places[0].numpy(), places[1].numpy())
    return torch.rand(count, config.latent, generator=random) * 2 - 1, torch.from_numpy(coordinates).float()


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture(autouse=True)
def same_weights_in_every_run() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=[1, 2], ids=lambda n: f"{n} threads")
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


class TestPublishedSizes:
    @pytest.mark.parametrize(("chosen", "total"), GENERATORS.values(), ids=GENERATORS)
    def test_parameters_of_the_generator(self, chosen: dict[str, Any], total: int) -> None:
        assert parameters(lambda: Generator(CocoGanConfig(**chosen), spectral=False)) == total

    @pytest.mark.parametrize(("chosen", "total"), CRITICS.values(), ids=CRITICS)
    def test_parameters_of_the_critic(self, chosen: dict[str, Any], total: int) -> None:
        assert parameters(lambda: Discriminator(CocoGanConfig(**chosen), spectral=False)) == total

    @pytest.mark.parametrize(("outputs", "total"), [(2, 66_178), (128, 82_432)], ids=["A", "Q"])
    def test_parameters_of_the_heads(self, outputs: int, total: int) -> None:
        assert parameters(lambda: Head(512, outputs, spectral=False)) == total

    @pytest.mark.parametrize(
        ("patch", "extra", "blocks"),
        [
            (4, 3, [(512, True), (256, False), (128, False), (64, False)]),
            (8, 1, [(512, True), (256, True), (128, False)]),
            (16, 0, [(512, True), (256, True), (128, True)]),
            (32, 0, [(512, True), (256, True), (128, True), (64, True)]),
            (64, 0, [(512, True), (256, True), (128, True), (64, True), (64, True)]),
            (256, 0, [(512, True), (256, True), (128, True), (64, True), (64, True), (64, True), (64, True)]),
        ],
    )
    def test_blocks_of_the_generator(self, patch: int, extra: int, blocks: list[tuple[int, bool]]) -> None:
        assert CocoGanConfig(patch=patch, extra_blocks=extra).generator_blocks == blocks

    @pytest.mark.parametrize(
        ("patch", "multipliers"),
        [
            (16, [1, 4, 8, 8]),
            (32, [1, 2, 4, 8, 8]),
            (64, [1, 1, 2, 4, 8, 8]),
            (256, [1, 1, 1, 1, 2, 4, 8, 8]),
        ],
    )
    def test_blocks_of_the_critic(self, patch: int, multipliers: list[int]) -> None:
        assert CocoGanConfig(patch=patch).critic_multipliers == multipliers

    @pytest.mark.parametrize("chosen", [settings for settings, _ in GENERATORS.values()], ids=GENERATORS)
    def test_a_patch_has_its_size(self, chosen: dict[str, Any]) -> None:
        config = CocoGanConfig(**chosen, width=1)
        patches = trained(Generator(config, spectral=False))(*inputs(config, 2))
        assert patches.shape == (2, 3, config.patch, config.patch)

    @pytest.mark.parametrize("chosen", [settings for settings, _ in CRITICS.values()], ids=CRITICS)
    def test_the_critics_last_map_is_4_by_4_of_512_channels(self, chosen: dict[str, Any]) -> None:
        with torch.device("meta"):
            config = CocoGanConfig(**chosen)
            x = torch.empty(1, 3, config.macro, config.macro)
            for block in Discriminator(config, spectral=False).blocks:
                x = block(x)
        assert x.shape == (1, 512, 4, 4)

    @pytest.mark.parametrize(
        ("chosen", "resolution"),
        [({"patch": 16}, (64, 64)), ({"patch": 256}, (1024, 1024)), (PANORAMA, (256, 768))],
    )
    def test_resolution_of_the_image(self, chosen: dict[str, Any], resolution: tuple[int, int]) -> None:
        assert CocoGanConfig(**chosen).size == resolution


class TestConfig:
    @pytest.mark.parametrize(
        ("chosen", "sentence"),
        [
            ({"patch": 12}, "power of two from 4 to 256, not 12"),
            ({"patch": 2}, "power of two from 4 to 256, not 2"),
            ({"patch": 512}, "power of two from 4 to 256, not 512"),
            ({"patch": 256, "span": 8, "rows": 9, "columns": 9}, "span 8 x 256 pixels exceeds 1024"),
            ({"patch": 4, "span": 9, "rows": 10, "columns": 10}, "1/8, so 36 pixels must divide"),
            ({"width": 0}, "greater than or equal to 1"),
            ({"width": 513}, "less than or equal to 512"),
            ({"critic_width": 513}, "less than or equal to 512"),
            ({"latent": 0}, "greater than or equal to 1"),
            ({"channels": 5}, "less than or equal to 4"),
            ({"rows": 5000}, "less than or equal to 4096"),
            ({"extra_blocks": 9}, "less than or equal to 8"),
            ({"condition_std": 0.0}, "greater than 0"),
            ({"padding": "mirror"}, "'zeros', 'replicate' or 'none'"),
            ({"padding": "none"}, "dense=False does not go with padding='none'"),
            ({"dense": True}, "dense=True does not go with padding='zeros'"),
            ({"topology": "sphere"}, "'plane', 'cylinder' or 'torus'"),
            ({"ngf": 64}, "Extra inputs are not permitted"),
        ],
    )
    def test_an_impossible_network_is_refused(self, chosen: dict[str, Any], sentence: str) -> None:
        with pytest.raises(ValidationError, match=sentence):
            CocoGanConfig(**chosen)

    @pytest.mark.parametrize("chosen", [{"rows": 2}, {"span": 4}, {"topology": "torus", "rows": 1}])
    def test_an_impossible_lattice_is_refused_in_its_own_words(self, chosen: dict[str, Any]) -> None:
        with pytest.raises(LatticeError, match=r"needs at least \d micro patches, not"):
            CocoGanConfig(**chosen)

    def test_every_setting_survives_json(self) -> None:
        config = tiny("cylinder", padding="replicate", condition_std=0.1, latent_head=True, reference_quirks=True)
        assert CocoGanConfig.model_validate_json(config.model_dump_json()) == config

    @given(patch=st.sampled_from([4, 8, 16]), span=st.integers(2, 17))
    @settings(max_examples=12)
    def test_the_critic_of_every_accepted_network_halves_without_a_rest(self, patch: int, span: int) -> None:
        try:
            config = CocoGanConfig(patch=patch, span=span, rows=span + 1, columns=span + 1, critic_width=1)
        except ValidationError:
            return
        x = torch.zeros(1, 3, config.macro, config.macro)
        for block in Discriminator(config, spectral=False).blocks:
            assert not (block.down and x.shape[2] % 2)
            x = block(x)
        assert 4 <= x.shape[2] < 8


class TestConditionalNorm:
    CHANNELS, ROWS = 3, 7

    def layer(self, quirk: bool, dtype: torch.dtype = torch.float64) -> ConditionalNorm:
        layer = ConditionalNorm(tiny(reference_quirks=quirk), self.CHANNELS).to(dtype)
        trained(layer)
        nn.init.constant_(layer.scale.bias, 1.0)
        return layer

    def formula(self, layer: ConditionalNorm, x: Tensor, condition: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        """y = gamma(c) (x - mean) / divisor + beta(c), sample by sample."""
        divisor = (var**2 + 1e-5).sqrt() if layer.quirk else (var + 1e-5).sqrt()
        samples = []
        for sample, c in zip(x, condition, strict=True):
            gamma = layer.scale.weight @ c + layer.scale.bias
            beta = layer.shift.weight @ c + layer.shift.bias
            normal_ = (sample - mean[:, None, None]) / divisor[:, None, None]
            samples.append(gamma[:, None, None] * normal_ + beta[:, None, None])
        return torch.stack(samples)

    def values(self, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
        x = 2 * normal(self.ROWS, self.CHANNELS, 5, 4, dtype=dtype) + 0.7
        return x, normal(self.ROWS, 6 + 2, seed=1, dtype=dtype)

    @pytest.mark.parametrize("quirk", [False, True])
    def test_training_uses_the_statistics_of_the_batch(self, quirk: bool) -> None:
        layer, (x, condition) = self.layer(quirk, torch.float32).train(), self.values(torch.float32)
        mean, var = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), correction=0)
        torch.testing.assert_close(layer(x, condition), self.formula(layer, x, condition, mean, var))

    @pytest.mark.parametrize("quirk", [False, True])
    def test_the_folded_form_of_evaluation_is_the_formula_with_running_statistics(self, quirk: bool) -> None:
        layer, (x, condition) = self.layer(quirk), self.values()
        expected = self.formula(layer, x, condition, layer.running_mean, layer.running_var)
        torch.testing.assert_close(layer(x, condition), expected, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("quirk", [False, True])
    def test_running_statistics_move_by_a_hundredth(self, quirk: bool) -> None:
        layer, (x, condition) = self.layer(quirk, torch.float32).train(), self.values(torch.float32)
        before = layer.running_mean.clone(), layer.running_var.clone()
        layer(x, condition)
        # The published code keeps the biased variance; torch's batch norm keeps the unbiased one.
        moments = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), correction=0 if quirk else 1)
        for old, new, moment in zip(before, (layer.running_mean, layer.running_var), moments, strict=True):
            torch.testing.assert_close(new, 0.99 * old + 0.01 * moment)

    @pytest.mark.parametrize("quirk", [False, True])
    def test_evaluation_changes_no_statistics(self, quirk: bool) -> None:
        layer = self.layer(quirk)
        before = [buffer.clone() for buffer in layer.buffers()]
        layer(*self.values())
        assert all(map(torch.equal, before, layer.buffers()))

    def test_the_scale_starts_without_a_one_as_published(self) -> None:
        layer = ConditionalNorm(tiny(), 3)
        assert not layer.scale.bias.any() and not layer.shift.bias.any()
        bound = (6 / (8 + 3)) ** 0.5  # Glorot-uniform, from 8 conditions to 3 channels
        assert layer.scale.weight.abs().max() <= bound

    def test_a_start_of_its_own_can_be_set(self) -> None:
        layer = ConditionalNorm(tiny(condition_scale=1.0, condition_std=0.01, latent=512), 64)
        assert (layer.scale.bias == 1).all() and not layer.shift.bias.any()
        assert layer.scale.weight.std().item() == pytest.approx(0.01, rel=0.05)


class TestSpectralNorm:
    @pytest.mark.parametrize("build", [Generator, Discriminator, lambda config: Head(16, 2)], ids=["G", "D", "A"])
    def test_all_convolutions_and_linear_layers_but_the_conditional_ones_have_it(
        self, build: Callable[[CocoGanConfig], nn.Module]
    ) -> None:
        network = build(tiny())
        conditional = {
            layer for norm in network.modules() if isinstance(norm, ConditionalNorm) for layer in norm.children()
        }
        layers = [part for part in network.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
        assert len(layers) > len(conditional)
        for layer in layers:
            assert parametrize.is_parametrized(layer, "weight") == (layer not in conditional)

    @pytest.mark.parametrize("build", [Generator, Discriminator], ids=["G", "D"])
    def test_the_inference_form_has_none(self, build: Any) -> None:
        assert not any(map(parametrize.is_parametrized, build(tiny(), spectral=False).modules()))

    def test_after_some_steps_the_largest_singular_value_is_one(self) -> None:
        network = Discriminator(tiny(critic_width=4)).train()
        for _ in range(20):
            network(normal(2, 3, 16, 16), normal(2, 2))
        for part in network.eval().modules():
            if parametrize.is_parametrized(part):
                assert torch.linalg.matrix_norm(part.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.05)

    @pytest.mark.parametrize("name", TINY)
    def test_a_plain_generator_with_the_folded_weights_is_the_same_network(self, name: str) -> None:
        config = tiny(name)
        spectral, plain = trained(Generator(config)), Generator(config, spectral=False).eval()
        plain.load_state_dict(plain_state(spectral))
        torch.testing.assert_close(plain(*inputs(config, 5)), spectral(*inputs(config, 5)), rtol=0, atol=0)

    def test_a_plain_critic_with_the_folded_weights_is_the_same_network(self) -> None:
        config = tiny()
        spectral, plain = trained(Discriminator(config)), Discriminator(config, spectral=False).eval()
        plain.load_state_dict(plain_state(spectral))
        macro, coordinates = normal(3, 3, 16, 16), normal(3, 2)
        torch.testing.assert_close(plain(macro, coordinates), spectral(macro, coordinates), rtol=0, atol=0)

    def test_the_folded_state_shares_no_gradient(self) -> None:
        assert not any(tensor.requires_grad for tensor in plain_state(Generator(tiny())).values())


class TestPadding:
    @pytest.mark.parametrize("padding", ["zeros", "replicate"])
    def test_a_convolution_pads_as_it_says(self, padding: Any) -> None:
        layer, x = PaddedConv(3, 5, padding).double(), normal(2, 3, 4, 6, dtype=torch.float64)
        mode = {"zeros": "constant", "replicate": "replicate"}[padding]
        expected = F.conv2d(F.pad(x, (1, 1, 1, 1), mode=mode), layer.weight, layer.bias)
        torch.testing.assert_close(layer(x), expected)

    def test_replicating_keeps_an_even_map_even(self) -> None:
        y = PaddedConv(3, 5, "replicate")(torch.ones(1, 3, 8, 8))
        torch.testing.assert_close(y, y[:, :, 4:5, 4:5].expand_as(y))

    def test_zeros_show_at_the_border(self) -> None:
        y = PaddedConv(3, 5, "zeros")(torch.ones(1, 3, 8, 8))
        assert not torch.isclose(y[:, :, 0], y[:, :, 4]).any()

    def test_the_weights_do_not_depend_on_the_padding(self) -> None:
        zeros, replicate = (Generator(tiny(padding=padding), spectral=False) for padding in ("zeros", "replicate"))
        assert {k: v.shape for k, v in zeros.state_dict().items()} == {
            k: v.shape for k, v in replicate.state_dict().items()
        }


class TestGenerator:
    @pytest.mark.parametrize("name", TINY)
    def test_pixels_stay_between_minus_one_and_one(self, name: str) -> None:
        config = tiny(name)
        latent, coordinates = inputs(config, 8)
        assert trained(Generator(config))(latent * 100, coordinates).abs().max() <= 1

    @pytest.mark.parametrize("channels", [1, 2, 4])
    def test_images_may_have_one_to_four_channels(self, channels: int) -> None:
        config = tiny(channels=channels)
        assert trained(Generator(config))(*inputs(config, 2)).shape == (2, channels, 8, 8)

    # In smaller batches oneDNN's 1x1 convolutions and MKL's matrix products take other paths; renderers pad them.
    @pytest.mark.parametrize("count", [16, 17, 24, 33, 47])
    @pytest.mark.parametrize("given", [{}, {"padding": "replicate"}, {"width": 4, "patch": 16}], ids=str)
    def test_a_patch_has_the_same_bits_in_any_batch_of_16_or_more(
        self, given: dict[str, Any], count: int, threads: None
    ) -> None:
        config = tiny(**given)
        generator, (latent, coordinates) = trained(Generator(config, spectral=False)), inputs(config, 48)
        whole = generator(latent, coordinates)
        for start in (0, 48 - count):
            part = generator(latent[start : start + count], coordinates[start : start + count])
            assert torch.equal(part, whole[start : start + count])

    # The maps of dense places have even sides: four of them are a multiple of 16 cells, as a block of a product is.
    @pytest.mark.parametrize("count", [16, 20, 24, 36, 44])
    @pytest.mark.parametrize("given", [{}, {"width": 4, "patch": 16}], ids=str)
    def test_a_dense_patch_has_the_same_bits_in_any_batch_of_whole_fours(
        self, given: dict[str, Any], count: int, threads: None
    ) -> None:
        config = tiny(dense=True, padding="none", **given)
        generator, (latent, coordinates) = trained(Generator(config, spectral=False)), inputs(config, 48)
        whole = generator(latent, coordinates)
        for start in (0, 48 - count):
            part = generator(latent[start : start + count], coordinates[start : start + count])
            assert torch.equal(part, whole[start : start + count])

    def test_patches_one_by_one_in_random_order_are_those_of_one_batch(self) -> None:
        config = tiny()
        generator, cells = trained(Generator(config)), config.lattice.cells()
        coordinates = torch.from_numpy(config.lattice.micro(cells[:, 0], cells[:, 1])).float()
        latent = inputs(config, 1)[0].expand(len(cells), -1)
        whole = generator(latent, coordinates)
        for k in np.random.default_rng(0).permutation(len(cells)):
            torch.testing.assert_close(
                generator(latent[k : k + 1], coordinates[k : k + 1])[0], whole[k], rtol=0, atol=1e-5
            )

    @pytest.mark.parametrize("name", TINY)
    def test_the_image_depends_on_latent_and_place(self, name: str) -> None:
        config = tiny(name)
        generator, (latent, coordinates) = trained(Generator(config)), inputs(config, 2)
        patches = generator(latent[[0, 0, 1]], coordinates[[0, 1, 0]])
        assert not torch.allclose(patches[0], patches[1]) and not torch.allclose(patches[0], patches[2])

    def test_the_shortcut_before_the_upsampling_equals_the_upsampling_before_it(self) -> None:
        config = tiny()
        generator = trained(Generator(config)).double()
        latent, coordinates = (t.double() for t in inputs(config, 3))
        condition = torch.cat([latent, coordinates], dim=1)
        window = Window(condition, coordinates)
        x = generator.stem(condition).unflatten(1, (-1, 2, 2))
        for block in generator.blocks:
            assert block.up
            y = block(x, window)
            first = doubled(F.relu(block.norm1(x, condition)))
            main = F.conv2d(first, block.conv1.weight, block.conv1.bias, padding=1)
            main = block.conv2(F.relu(block.norm2(main, condition)))
            torch.testing.assert_close(y, block.shortcut(doubled(x)) + main, rtol=1e-12, atol=1e-12)
            x = y

    def test_gradient_reaches_the_stem_through_the_tiling(self) -> None:
        config = tiny(condition_std=0.3, condition_scale=1.0)
        generator = Generator(config)
        macro = assemble(generator(*inputs(config, 8)), 2, 2)
        assert macro.shape == (2, 3, 16, 16)
        macro[:, :, -1, -1].sum().backward()  # the last patch of each macro patch alone
        gradient = generator.stem.parametrizations.weight.original.grad
        assert gradient is not None and gradient.abs().sum() > 0

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_only_convolutions_are_cast(self, dtype: torch.dtype) -> None:
        generator = cast_maps(Generator(tiny(), spectral=False), dtype)
        for part in generator.modules():
            for parameter in part.parameters(recurse=False):
                assert parameter.dtype == (dtype if isinstance(part, nn.Conv2d) else torch.float32)

    def test_cast_maps_draw_nearly_the_same_picture(self) -> None:
        config = tiny()
        generator = trained(Generator(config, spectral=False))
        whole = generator(*inputs(config, 8))
        cast = cast_maps(generator, torch.bfloat16)(*inputs(config, 8))
        torch.testing.assert_close(cast.float(), whole, rtol=0, atol=0.1)


def doubled(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


class TestDiscriminator:
    def test_the_coordinate_enters_by_projection(self) -> None:
        config = tiny()
        critic = trained(Discriminator(config))
        macro, coordinates = normal(4, 3, 16, 16), normal(4, 2, seed=1)
        value, feature = critic(macro, coordinates)
        alone, same = critic(macro, None)
        torch.testing.assert_close(value - alone, (feature * critic.embed(coordinates)).sum(1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(feature, same, rtol=0, atol=0)

    def test_the_feature_is_the_sum_over_space(self) -> None:
        critic = trained(Discriminator(tiny()))
        x = normal(2, 3, 16, 16)
        for block in critic.blocks:
            x = block(x)
        feature = critic(normal(2, 3, 16, 16), None)[1]
        torch.testing.assert_close(feature, F.relu(x).sum(dim=(2, 3)))
        torch.testing.assert_close(critic(normal(2, 3, 16, 16), None)[0], critic.critic(feature)[:, 0])

    def test_a_block_pools_only_if_it_is_not_the_last_and_activates_only_if_it_is_not_the_first(self) -> None:
        critic = trained(Discriminator(tiny())).double()
        x = normal(2, 3, 16, 16, dtype=torch.float64)
        for k, block in enumerate(critic.blocks):
            main = block.conv2(F.relu(block.conv1(F.relu(x) if k else x)))
            shortcut = block.shortcut(x)
            expected = main + shortcut if k == len(critic.blocks) - 1 else F.avg_pool2d(main + shortcut, 2)
            x = block(x)
            torch.testing.assert_close(x, expected, rtol=1e-12, atol=1e-12)

    def test_gradients_can_be_differentiated(self) -> None:
        critic = Discriminator(tiny())
        macro = normal(2, 3, 16, 16).requires_grad_()
        (slope,) = torch.autograd.grad(critic(macro, normal(2, 2))[0].sum(), macro, create_graph=True)
        slope.square().sum().backward()
        gradient = critic.blocks[0].conv1.parametrizations.weight.original.grad
        assert gradient is not None and gradient.isfinite().all() and gradient.any()


class TestHead:
    def test_it_is_the_published_stack(self) -> None:
        head, h = trained(Head(8, 3, 5)).double(), normal(4, 8, dtype=torch.float64)
        x = head.hidden.weight @ h.T + head.hidden.bias[:, None]
        x = (x - head.norm.running_mean[:, None]) / (head.norm.running_var[:, None] + 1e-5).sqrt()
        x = x * head.norm.weight[:, None] + head.norm.bias[:, None]
        x = torch.where(x > 0, x, 0.2 * x)
        torch.testing.assert_close(head(h), torch.tanh(head.output.weight @ x + head.output.bias[:, None]).T)

    def test_predictions_stay_between_minus_one_and_one(self) -> None:
        assert trained(Head(8, 3, 5))(normal(4, 8) * 1000).abs().max() <= 1


class TestStart:
    @pytest.mark.parametrize("spectral", [True, False])
    def test_convolutions_start_he_normal_and_linear_layers_lecun_normal(self, spectral: bool) -> None:
        network = Discriminator(tiny(critic_width=16), spectral=spectral)
        for part, gain in ((network.blocks[1].conv2, 2), (network.critic, 1), (network.blocks[1].shortcut, 2)):
            weight = part.parametrizations.weight.original if spectral else part.weight
            assert weight.std().item() == pytest.approx((gain / weight[0].numel()) ** 0.5, rel=0.15)
            assert part.bias is not None and not part.bias.any()
