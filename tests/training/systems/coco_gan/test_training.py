from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from zellige.engine.layers.spectral import plain_state
from zellige.engine.systems.coco_gan.config import CocoGanConfig
from zellige.engine.systems.coco_gan.generator import Generator
from zellige.training.systems.coco_gan.recipe import CocoGanRecipe
from zellige.training.systems.coco_gan.training import CocoGanTraining, assemble

TOPOLOGIES = ["plane", "cylinder", "torus"]
HINGE: dict[str, Any] = {"loss": "hinge", "penalty": 0}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Networks as small as these only wait for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def training(seed: int = 0, model: dict[str, Any] | None = None, **options: Any) -> CocoGanTraining:
    """The training of a tiny network; scales start at one, for otherwise nothing flows at first."""
    config = CocoGanConfig(
        **{"rows": 4, "columns": 5, "patch": 4, "latent": 5, "width": 1, "critic_width": 2, "head_width": 6}
        | {"condition_std": 0.3, "condition_scale": 1.0}
        | (model or {})
    )
    return CocoGanTraining(CocoGanRecipe(**{"model": config, "batch": 8} | options), torch.device("cpu"), seed)


def batch(run: CocoGanTraining, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random macro patches, as the data loader gives them."""
    random, config, count = np.random.default_rng(seed), run.recipe.model, run.recipe.batch
    cells = config.lattice.macro_cells()
    positions = cells[random.integers(len(cells), size=count)].astype(np.float64)
    images = random.integers(0, 256, (count, config.channels, config.macro, config.macro), np.uint8)
    return torch.from_numpy(images), torch.from_numpy(positions)


def advance(run: CocoGanTraining, steps: int = 1, progress: float = 0.0) -> dict[str, Tensor]:
    metrics: dict[str, Tensor] = {}
    for k in range(steps):
        metrics = run.step(batch(run, k), progress)
    return metrics


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def moved(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, parameter in module.named_parameters() if not torch.equal(parameter, before[name])}


class TestAssemble:
    @given(
        count=st.integers(1, 3), channels=st.integers(1, 4), rows=st.integers(1, 4), columns=st.integers(1, 4),
        height=st.integers(1, 3), width=st.integers(1, 3),
    )  # fmt: skip
    def test_patches_are_laid_column_by_column(
        self, count: int, channels: int, rows: int, columns: int, height: int, width: int
    ) -> None:
        patches = torch.arange(count * rows * columns * channels * height * width)
        patches = patches.reshape(-1, channels, height, width)
        strips = [
            torch.cat(list(patches[start : start + rows]), dim=1) for start in range(0, len(patches), rows)
        ]  # every strip one column
        pictures = [torch.cat(strips[k : k + columns], dim=2) for k in range(0, len(strips), columns)]
        assert torch.equal(assemble(patches, rows, columns), torch.stack(pictures))


class TestStep:
    @pytest.mark.parametrize("options", [{}, HINGE, HINGE | {"diversity": 1}], ids=str)
    @pytest.mark.parametrize("topology", TOPOLOGIES)
    def test_generator_critic_and_head_move(self, topology: str, options: dict[str, Any]) -> None:
        run = training(model={"topology": topology}, **options)
        networks = {name: run.modules()[name] for name in ("generator", "critic", "spatial_head")}
        before = {name: weights(network) for name, network in networks.items()}
        advance(run)
        for name, network in networks.items():
            # A shift of all values changes no Wasserstein distance, one of the hidden values nothing behind their norm.
            still = {"critic": set() if options else {"critic.bias"}, "spatial_head": {"hidden.bias"}}.get(name, set())
            assert moved(network, before[name]) >= before[name].keys() - still

    @pytest.mark.parametrize("topology", TOPOLOGIES)
    @pytest.mark.parametrize("sampling", ["lattice", "continuous"])
    def test_real_and_fake_share_their_coordinates(self, topology: str, sampling: Any) -> None:
        run = training(model={"topology": topology}, sampling=sampling, **HINGE)
        images, positions = batch(run)
        if sampling == "continuous" and topology != "plane":
            positions[:, 1] += 0.3
        seen: list[Tensor] = []
        run.critic.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[1]))
        run.step((images, positions), 0.0)
        expected = torch.from_numpy(run.recipe.model.lattice.macro(positions[:, 0], positions[:, 1])).float()
        of_critic, of_generator = seen[:2]
        assert torch.equal(of_critic, torch.cat([expected, expected])) and torch.equal(of_generator, expected)

    def test_fake_macro_patches_are_made_of_one_latent_and_their_own_micro_coordinates(self) -> None:
        run = training(**HINGE)
        images, positions = batch(run)
        seen: list[tuple[Tensor, ...]] = []
        run.generator.register_forward_pre_hook(lambda module, arguments: seen.append(arguments))
        run.step((images, positions), 0.0)
        latent, coordinates = seen[0]
        assert torch.equal(latent, latent[::4].repeat_interleave(4, dim=0)) and len(latent[::4].unique(dim=0)) == 8
        places = run.recipe.model.lattice.inside(positions[:, 0], positions[:, 1]).reshape(-1, 2)
        expected = run.recipe.model.lattice.micro(places[:, 0], places[:, 1])
        assert torch.equal(coordinates, torch.from_numpy(expected).float())

    def test_pixels_are_scaled_to_minus_one_to_one(self) -> None:
        run = training(**HINGE)
        images, positions = batch(run)
        images[0], images[1] = 0, 255
        seen: list[Tensor] = []
        run.critic.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
        run.step((images, positions), 0.0)
        assert set(seen[0][0].flatten().tolist()) == {-1} and set(seen[0][1].flatten().tolist()) == {1}

    def test_latents_are_uniform_on_minus_one_to_one(self) -> None:
        run = training(model={"latent": 512}, **HINGE)
        seen: list[Tensor] = []
        run.generator.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0][::4]))
        advance(run)
        values = seen[0].flatten()
        assert values.min() < -0.99 and values.max() > 0.99 and values.abs().max() <= 1
        assert values.std().item() == pytest.approx(3**-0.5, rel=0.03)

    def test_a_seed_repeats_the_run(self) -> None:
        one, other = training(seed=3), training(seed=3)
        assert advance(one, 3) == advance(other, 3)
        assert all(map(torch.equal, one.average.state_dict().values(), other.average.state_dict().values()))

    def test_another_seed_is_another_run(self) -> None:
        assert advance(training(seed=3)) != advance(training(seed=4))

    @pytest.mark.parametrize("quirks", [False, True])
    @pytest.mark.parametrize("topology", TOPOLOGIES)
    def test_metrics_are_finite(self, topology: str, quirks: bool) -> None:
        run = training(model={"topology": topology, "reference_quirks": quirks, "latent_head": True}, content=100)
        metrics = advance(run, 3)
        assert metrics.keys() == {
            "critic", "wasserstein", "penalty", "consistency", "content", "generator", "diversity",
        }  # fmt: skip
        assert all(value.isfinite() for value in metrics.values())

    def test_bfloat16_trains(self) -> None:
        run = training(precision="bf16", model={"padding": "replicate"}, diversity=1)
        metrics = advance(run, 3)
        assert all(value.isfinite() for value in metrics.values())
        assert all(parameter.dtype == torch.float32 for parameter in run.generator.parameters())

    def test_bfloat16_is_close_to_float32(self) -> None:
        whole, half = (advance(training(precision=precision)) for precision in ("fp32", "bf16"))
        assert half["consistency"].item() == pytest.approx(whole["consistency"].item(), rel=0.1)
        assert half["diversity"].item() == pytest.approx(whole["diversity"].item(), rel=0.1)


class TestOptimisers:
    def test_head_a_is_in_both_lists(self) -> None:
        run = training()
        head = {id(parameter) for parameter in run.spatial_head.parameters()}
        for name, network in (("generator", run.generator), ("critic", run.critic)):
            (group,) = run.optimisers[name].param_groups
            assert {id(p) for p in group["params"]} == head | {id(p) for p in network.parameters()}

    def test_rates_and_moments_are_the_papers(self) -> None:
        run = training(model={"latent_head": True})
        rates = {name: optimiser.param_groups[0]["lr"] for name, optimiser in run.optimisers.items()}
        assert rates == {"generator": 1e-4, "critic": 4e-4, "latent": 1e-4}
        assert {optimiser.param_groups[0]["betas"] for optimiser in run.optimisers.values()} == {(0.0, 0.999)}

    @pytest.mark.parametrize(("name", "rate"), [("generator", 1e-4), ("critic", 4e-4)])
    def test_adams_first_step_moves_a_weight_by_the_rate(self, name: str, rate: float) -> None:
        run = training(**HINGE)
        before = weights(module := run.modules()[name])
        advance(run)
        for key, parameter in module.named_parameters():
            assert parameter.grad is not None
            change, clear = (parameter - before[key]).abs(), parameter.grad.abs() > 1e-4  # eps is 1e-8
            torch.testing.assert_close(change[clear], torch.full_like(change[clear], rate), rtol=0.01, atol=1e-7)

    @pytest.mark.parametrize(("progress", "share"), [(0.0, 1.0), (0.69, 1.0), (0.7, 1.0), (0.85, 0.5), (1.0, 0.0)])
    def test_rates_fall_linearly_at_the_end(self, progress: float, share: float) -> None:
        run = training(decay_from=0.7, beyond=1, model={"latent_head": True}, **HINGE)
        advance(run, progress=progress)
        for name, optimiser in run.optimisers.items():
            rate = 4e-4 if "critic" in name else 1e-4
            assert optimiser.param_groups[0]["lr"] == pytest.approx(share * rate, abs=1e-12)

    def test_published_rates_never_fall(self) -> None:
        run = training()
        advance(run, progress=1.0)
        assert run.optimisers["critic"].param_groups[0]["lr"] == 4e-4

    def test_halves_of_a_batch_add_up_to_its_gradient(self) -> None:
        # With statistics that stay, and a critic that stands still, the losses are means over samples.
        gradients = []
        for parts in (1, 2, 4):
            run = training(accumulate=parts, lr_critic=1e-30, **HINGE)
            for module in run.modules().values():
                module.eval()
            advance(run)
            gradients.append([p.grad for name in ("generator", "critic") for p in run.modules()[name].parameters()])
        for other in gradients[1:]:
            for a, b in zip(gradients[0], other, strict=True):
                assert a is not None and b is not None
                torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize("options", [{}, HINGE | {"diversity": 1}], ids=str)
    def test_a_batch_in_parts_trains(self, options: dict[str, Any]) -> None:
        run = training(model={"topology": "cylinder"}, accumulate=4, **options)
        assert all(value.isfinite() for value in advance(run, 2).values())


class TestAverage:
    def test_it_starts_as_the_generators_effective_weights(self) -> None:
        run = training()
        effective = plain_state(run.generator.eval())
        assert all(torch.equal(tensor, effective[name]) for name, tensor in run.average.state_dict().items())

    @pytest.mark.parametrize(("ema", "step", "decay"), [(0.999, 1, 2 / 11), (0.999, 3, 4 / 13), (0.25, 3, 0.25)])
    def test_it_follows_the_effective_weights(self, ema: float, step: int, decay: float) -> None:
        run = training(ema=ema, **HINGE)
        advance(run, step - 1)
        before = {name: tensor.clone() for name, tensor in run.average.state_dict().items()}
        advance(run)
        effective = plain_state(run.generator.eval())
        for name, tensor in run.average.state_dict().items():
            if tensor.is_floating_point():
                torch.testing.assert_close(tensor, decay * before[name] + (1 - decay) * effective[name])

    def test_it_has_no_spectral_norm_and_no_gradient(self) -> None:
        run = training()
        assert not any("parametrizations" in name for name in run.average.state_dict())
        assert not any(parameter.requires_grad for parameter in run.average.parameters())

    def test_the_model_file_holds_it_with_statistics_of_its_own(self) -> None:
        run = training(**HINGE)
        advance(run, 3)
        before = weights(run.average)
        tensors, config = run.model()
        assert CocoGanConfig.model_validate(config) == run.recipe.model
        generator = Generator(run.recipe.model, spectral=False)
        generator.load_state_dict({name.removeprefix("generator."): tensor for name, tensor in tensors.items()})
        assert not moved(generator, before)
        # On fresh latents, its normalised maps then have mean 0 and deviation 1.
        seen: list[Tensor] = []
        generator.norm.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
        random, lattice = torch.Generator().manual_seed(5), run.recipe.model.lattice
        cells = np.tile(lattice.cells(), (100, 1))
        coordinates = torch.from_numpy(lattice.micro(cells[:, 0], cells[:, 1])).float()
        generator.eval()(torch.rand(len(cells), 5, generator=random) * 2 - 1, coordinates)
        deviation = generator.norm.running_var.sqrt()
        assert ((seen[0].mean(dim=(0, 2, 3)) - generator.norm.running_mean).abs() < 0.1 * deviation).all()
        torch.testing.assert_close(seen[0].std(dim=(0, 2, 3)), deviation, rtol=0.1, atol=1e-3)

    @pytest.mark.parametrize(("storage", "dtype"), [("fp32", torch.float32), ("fp16", torch.float16)])
    def test_matrices_are_stored_as_the_recipe_says(self, storage: Any, dtype: torch.dtype) -> None:
        tensors, _ = training(storage=storage).model()
        assert {tensor.dtype for tensor in tensors.values() if tensor.ndim > 1} == {dtype}
        assert {tensor.dtype for tensor in tensors.values() if tensor.ndim == 1} == {torch.float32}

    def test_samples_are_always_of_the_same_latents(self) -> None:
        run = training()
        np.testing.assert_array_equal(run.samples(), run.samples())
        assert run.samples().dtype == np.uint8


class TestConsistency:
    @staticmethod
    def expected(run: CocoGanTraining, weight: list[float]) -> Tensor:
        """The first step's consistency by hand, from what head A read and said."""
        read: list[tuple[Tensor, Tensor]] = []
        run.spatial_head.register_forward_hook(lambda module, arguments, y: read.append((arguments[0], y)))
        images, positions = batch(run)
        metrics = run.step((images, positions), 0.0)
        wanted = torch.from_numpy(run.recipe.model.lattice.macro(positions[:, 0], positions[:, 1])).float()
        errors = [((said - wanted) ** 2 * torch.tensor(weight)).mean() for _, said in read[:2]]  # real, fake
        torch.testing.assert_close(metrics["consistency"], sum(errors))
        return metrics["consistency"]

    def test_it_is_the_squared_error_on_real_and_on_fake(self) -> None:
        self.expected(training(**HINGE), [1.0, 1.0])

    def test_an_open_axis_alone_counts_as_much_as_all(self) -> None:
        self.expected(training(model={"topology": "cylinder"}, consistency_axes="open", **HINGE), [3.0, 0.0, 0.0])

    @pytest.mark.parametrize("topology", TOPOLOGIES)
    def test_without_it_the_head_stands_still(self, topology: str) -> None:
        run = training(model={"topology": topology}, consistency=0, **HINGE)
        before = weights(run.spatial_head)
        assert "consistency" not in advance(run)
        assert not moved(run.spatial_head, before)


class TestLatentHead:
    def test_it_learns(self) -> None:
        run = training(model={"latent_head": True}, content=100, **HINGE)
        assert run.latent_head is not None
        before = weights(run.latent_head)
        metrics = advance(run)
        assert moved(run.latent_head, before) >= before.keys() - {"hidden.bias"}
        assert all(parameter.grad is not None for parameter in run.latent_head.parameters())
        assert 0 < metrics["content"] < 2

    def test_its_error_reaches_generator_and_critic(self) -> None:
        gradients = []
        for content in (0.0, 100.0):
            run = training(model={"latent_head": True}, content=content, lr_critic=1e-30, **HINGE)
            advance(run)
            gradients.append([p.grad for name in ("generator", "critic") for p in run.modules()[name].parameters()])
        different = [not torch.allclose(a, b) for a, b in zip(*gradients, strict=True) if a is not None]
        assert sum(different) > len(different) / 2

    def test_the_model_file_holds_critic_and_head_for_patch_guided_generation(self) -> None:
        run = training(model={"latent_head": True}, content=100)
        tensors, _ = run.model()
        assert {name.split(".")[0] for name in tensors} == {"generator", "critic", "latent_head"}
        assert not any("parametrizations" in name for name in tensors)

    def test_other_models_have_none(self) -> None:
        run = training()
        assert run.latent_head is None and set(run.modules()) == {"generator", "critic", "spatial_head", "average"}


class TestBeyond:
    @pytest.mark.parametrize("topology", ["plane", "cylinder"])
    def test_the_extra_steps_move_two_blocks_of_the_generator_and_all_of_the_critic(self, topology: str) -> None:
        model: dict[str, Any] = {"topology": topology, "patch": 16}
        inside, beyond = (training(model=model, beyond=extra, **HINGE) for extra in (0, 1))
        assert len(beyond.generator.blocks) == 3
        for run in (inside, beyond):
            advance(run)
        further = moved(beyond.generator, weights(inside.generator))
        two = {name for name in weights(inside.generator) if name.startswith(("blocks.0.", "blocks.1."))}
        assert further == two
        assert moved(beyond.critic, weights(inside.critic)) == weights(inside.critic).keys()
        assert not moved(beyond.spatial_head, weights(inside.spatial_head))

    def test_fake_positions_lie_on_the_extended_lattice_and_real_ones_inside(self) -> None:
        run = training(beyond=1, batch=64, **HINGE)
        seen: list[Tensor] = []
        run.critic.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[1]))
        advance(run)
        real, fake = next(c for c in reversed(seen) if c is not None and len(c) == 128).split(64)
        lattice = run.recipe.model.lattice
        cells = lattice.macro_cells(1)
        allowed = {tuple(c) for c in lattice.macro(cells[:, 0], cells[:, 1]).astype(np.float32)}
        assert real.abs().max() <= 1 < fake.abs().max()
        assert {tuple(c) for c in fake.numpy()} <= allowed

    def test_the_head_is_not_asked_for_what_tanh_cannot_say(self) -> None:
        run = training(beyond=1, batch=64, lr_critic=1e-30, **HINGE)
        read: list[Tensor] = []
        judged: list[Tensor] = []
        run.spatial_head.register_forward_hook(lambda module, arguments, y: read.append(y.detach()))
        run.critic.register_forward_pre_hook(lambda module, arguments: judged.append(arguments[1]))
        metrics = advance(run)
        both = [c for c in judged if c is not None and len(c) == 128][-1]
        (real_c, fake_c), (real, fake) = both.split(64), read[4:6]
        inside = (fake_c.abs() <= 1 + 1e-4).all(dim=1)
        assert 0 < inside.sum() < 64
        errors = (real - real_c).square().mean() + ((fake - fake_c).square()[inside].sum() / fake_c.numel())
        torch.testing.assert_close(metrics["beyond_consistency"], errors)

    def test_its_metrics_carry_its_name(self) -> None:
        metrics = advance(training(beyond=1))
        ordinary = {name for name in metrics if not name.startswith("beyond_")}
        assert metrics.keys() - ordinary == {f"beyond_{name}" for name in ordinary}


class TestVariety:
    def test_a_generator_that_is_varied_enough_gets_no_push(self) -> None:
        gradients = []
        for weight in (0.0, 50.0):
            run = training(diversity=weight, diversity_target=1e-6, **HINGE)
            advance(run)
            gradients.append([parameter.grad for parameter in run.generator.parameters()])
        for a, b in zip(*gradients, strict=True):
            assert a is not None and b is not None and torch.equal(a, b)

    def test_the_real_distance_starts_at_the_first_batch_and_then_moves_by_a_hundredth(self) -> None:
        run = training(**HINGE)
        distances = []
        for k in range(2):
            images, positions = batch(run, k)
            run.step((images, positions), 0.0)
            scaled = images.float() / 127.5
            distances.append((scaled[0::2] - scaled[1::2]).abs().mean())
            expected = distances[0] if k == 0 else 0.99 * distances[0] + 0.01 * distances[1]
            torch.testing.assert_close(run.real_distance, expected)


class TestDense:
    @pytest.mark.parametrize("topology", TOPOLOGIES)
    def test_a_macro_patch_made_at_once_is_made_of_its_micro_patches(self, topology: str) -> None:
        run = training(model={"topology": topology, "span": 3, "dense": True, "padding": "none"}, **HINGE)
        run.generator.eval()  # patches then do not depend on their batch
        positions = np.array([[0.0, 1.0], [1.0, 0.0]])
        z = torch.rand(2, run.recipe.model.latent) * 2 - 1
        cells = run.recipe.model.lattice.inside(positions[:, 0], positions[:, 1]).reshape(-1, 2)
        patches = run.generator(z.repeat_interleave(9, 0), run._micro_coordinates(cells))
        torch.testing.assert_close(run._macro(z, positions), assemble(patches, 3, 3), rtol=0, atol=1e-5)
