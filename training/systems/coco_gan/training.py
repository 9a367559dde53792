"""One training step of COCO-GAN: critic, generator and heads, with everything that a run must save to go on exactly."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....engine.files.pictures import contact_sheet, to_uint8
from ....engine.layers.spectral import plain_state
from ....engine.systems.coco_gan.critic import Discriminator, Head
from ....engine.systems.coco_gan.generator import ConditionalNorm, Generator
from ....kernels.op.levels import values_of
from ...average import fade_rates, follow
from ...losses import critic_loss, generator_loss, gradient_penalty
from .losses import diversity_shortfall, pair_distance
from .recipe import CocoGanRecipe

__all__ = ["CocoGanTraining", "assemble"]


class CocoGanTraining:
    """The networks, optimisers and random state of a run, and the step that advances them.

    Args:
        recipe: recipe of the run.
        device: the device that it runs on.
        seed: of weights and latents.
    """

    system = "coco-gan"

    def __init__(self, recipe: CocoGanRecipe, device: torch.device, seed: int) -> None:
        self.recipe, self.device, config = recipe, device, recipe.model
        torch.manual_seed(seed)
        self.generator = Generator(config)
        self.critic = Discriminator(config)
        self.spatial_head = Head(self.critic.features, config.lattice.dimensions, config.head_width)
        self.latent_head = Head(self.critic.features, config.latent, config.head_width) if config.latent_head else None
        self.average = Generator(config, spectral=False).eval().requires_grad_(False)
        self.average.load_state_dict(plain_state(self.generator))
        for module in self.modules().values():
            module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        spatial = list(self.spatial_head.parameters())
        latent = list(self.latent_head.parameters()) if self.latent_head else []
        # Head A is in both lists, as published, so it learns to read coordinates in both networks' steps.
        groups = {
            "generator": ([*self.generator.parameters(), *spatial], recipe.lr_generator),
            "critic": ([*self.critic.parameters(), *spatial], recipe.lr_critic),
        }
        if latent:
            groups["latent"] = (latent, recipe.lr_latent)
        if recipe.beyond:
            # Only the first two blocks learn what lies outside; the others keep drawing as they learnt to inside.
            groups["beyond_generator"] = (list(self.generator.blocks[:2].parameters()), recipe.lr_generator)
            groups["beyond_critic"] = (list(self.critic.parameters()), recipe.lr_critic)
        self.rates = {name: lr for name, (_, lr) in groups.items()}
        self.optimisers = {
            name: torch.optim.Adam(parameters, lr=lr, betas=recipe.betas) for name, (parameters, lr) in groups.items()
        }
        self.random = torch.Generator(device).manual_seed(seed)
        self.real_distance = torch.zeros((), device=device)
        self.updates = torch.zeros((), dtype=torch.int64)
        axes = config.lattice.axes
        predicted = [not (axis.cyclic and recipe.consistency_axes == "open") for axis in axes]
        ranges = [axis.dimensions for axis in axes]
        self._predicted = torch.tensor(np.repeat(predicted, ranges), device=device, dtype=torch.float32)

    def modules(self) -> dict[str, nn.Module]:
        """Return every network by name, the averaged generator too."""
        modules: dict[str, nn.Module] = {
            "generator": self.generator,
            "critic": self.critic,
            "spatial_head": self.spatial_head,
            "average": self.average,
        }
        if self.latent_head:
            modules["latent_head"] = self.latent_head
        return modules

    def numbers(self) -> dict[str, Tensor]:
        """Return running values outside the networks: mean distance of real pairs, number of averaging updates."""
        return {"real_distance": self.real_distance, "updates": self.updates}

    @torch.no_grad()
    def samples(self, count: int = 6) -> npt.NDArray[np.uint8]:
        """Return a contact sheet of the averaged generator's images for fixed latents, uint8 [H, W, 3]."""
        lattice = self.recipe.model.lattice
        cells = lattice.cells(self.recipe.beyond)
        rows = len(np.unique(cells[:, 0]))
        coordinates = self._micro_coordinates(cells)
        fixed = torch.rand(count, self.recipe.model.latent, generator=torch.Generator().manual_seed(0)) * 2 - 1
        images = []
        for latent in fixed.to(self.device):
            with self._autocast():
                patches = self.average(latent.expand(len(cells), -1), coordinates)
            images.append(assemble(patches.float(), rows, len(cells) // rows))
        return contact_sheet(to_uint8(torch.cat(images)))

    def model(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and configuration of the model file: the averaged generator and, with head Q, critic and head.

        The averaged weights get batch statistics of their own, from latents and coordinates drawn as in training.
        """
        self._recalibrate(batches=50)
        parts = {"generator": self.average.state_dict()}
        if self.latent_head:
            parts |= {"critic": plain_state(self.critic), "latent_head": plain_state(self.latent_head)}
        small = torch.float16 if self.recipe.storage == "fp16" else torch.float32
        tensors = {
            f"{part}.{name}": tensor.detach().cpu().contiguous().to(small if tensor.ndim > 1 else torch.float32)
            for part, state in parts.items()
            for name, tensor in state.items()
            if tensor.is_floating_point()
        }
        return tensors, self.recipe.model.model_dump(mode="json")

    def step(self, batch: tuple[Tensor, ...], progress: float) -> dict[str, Tensor]:
        """Take one critic step, then one generator step (and head Q's) on the same latents and coordinates.

        Args:
            batch: macro patches, uint8 [B, C, K, K]; their positions on the lattice, float64 [B, 2].
            progress: share of the run that is done, for the learning rates.
        Returns:
            scalars to log, on the device.
        """
        real, positions = batch
        fade_rates(self.optimisers, self.rates, progress, self.recipe.decay_from)
        images = values_of(real.to(self.device, non_blocking=True))
        images = images.contiguous(memory_format=torch.channels_last)
        metrics = self._update(images, positions.numpy(), positions.numpy(), "")
        if self.recipe.beyond:
            lattice, cells = self.recipe.model.lattice, self.recipe.model.lattice.macro_cells(self.recipe.beyond)
            chosen = torch.randint(len(cells), (len(real),), generator=self.random, device=self.device).cpu().numpy()
            assert lattice.topology != "torus"
            outside = self._update(images, positions.numpy(), cells[chosen].astype(np.float64), "beyond_")
            metrics |= {f"beyond_{name}": value for name, value in outside.items()}
        self._average_weights()
        return metrics

    def _update(self, images: Tensor, real_at: Any, fake_at: Any, prefix: str) -> dict[str, Tensor]:
        recipe, parts = self.recipe, self.recipe.accumulate
        critic_steps, generator_steps = self.optimisers[prefix + "critic"], self.optimisers[prefix + "generator"]
        latent = torch.rand(len(images), recipe.model.latent, generator=self.random, device=self.device) * 2 - 1
        batches = list(zip(images.chunk(parts), np.array_split(real_at, parts), np.array_split(fake_at, parts),
                           latent.chunk(parts), strict=True))  # fmt: skip
        metrics: dict[str, Tensor] = {}

        def note(name: str, value: Tensor) -> None:
            metrics[name] = metrics.get(name, torch.zeros((), device=self.device)) + value.detach() / parts

        critic_steps.zero_grad(set_to_none=True)
        kept = []
        for real, at, elsewhere, z in batches:
            with torch.set_grad_enabled(parts == 1), self._autocast():
                fake = self._macro(z, elsewhere)
            kept.append(fake)
            loss = self._critic_objective(real, fake.detach(), z, at, elsewhere, note)
            (loss / parts).backward()
        critic_steps.step()

        generator_steps.zero_grad(set_to_none=True)
        if "latent" in self.optimisers:
            self.optimisers["latent"].zero_grad(set_to_none=True)
        # Gradients pass through the critic but do not change it.
        self.critic.requires_grad_(False)
        for (real, at, elsewhere, z), made in zip(batches, kept, strict=True):
            fake = made
            if parts > 1:
                with self._autocast():
                    fake = self._macro(z, elsewhere)
            loss = self._generator_objective(real, fake, z, at, elsewhere, note)
            (loss / parts).backward()
        self.critic.requires_grad_(True)
        generator_steps.step()
        if "latent" in self.optimisers:
            self.optimisers["latent"].step()
        return metrics

    def _critic_objective(self, real: Tensor, fake: Tensor, z: Tensor, at: Any, elsewhere: Any, note: Any) -> Tensor:
        recipe, n = self.recipe, len(real)
        real_c, fake_c = self._macro_coordinates(at), self._macro_coordinates(elsewhere)
        with self._autocast():
            values, features = self.critic(torch.cat([real, fake]), torch.cat([real_c, fake_c]))
        loss = critic_loss(recipe.loss, values[:n], values[n:])
        note("critic", loss)
        note("wasserstein", values[:n].mean() - values[n:].mean())
        if recipe.penalty:
            quirks = recipe.model.reference_quirks
            # The penalty differentiates twice, in float32, because half precision would lose its small differences.
            penalty = gradient_penalty(
                lambda x: self.critic(x, None if quirks else fake_c)[0], real, fake.float(), self.random, quirks=quirks
            )
            note("penalty", penalty)
            loss = loss + recipe.penalty * penalty
        loss = loss + self._head_losses(features[:n], features[n:], z, real_c, fake_c, note)
        return loss

    def _generator_objective(self, real: Tensor, fake: Tensor, z: Tensor, at: Any, elsewhere: Any, note: Any) -> Tensor:
        recipe = self.recipe
        real_c, fake_c = self._macro_coordinates(at), self._macro_coordinates(elsewhere)
        with self._autocast():
            values, features = self.critic(fake, fake_c)
            with torch.no_grad():
                real_features = self.critic(real, None)[1] if recipe.consistency else features[:0]
        loss = generator_loss(values)
        note("generator", loss)
        loss = loss + self._head_losses(real_features, features, z, real_c, fake_c, None)
        with torch.no_grad():
            # The distance is at least one grey level of 255, because equal pictures would give 0 to divide by.
            distance = pair_distance(real).clamp(min=1 / 127.5)
            self.real_distance.copy_(
                torch.where(self.real_distance > 0, self.real_distance.lerp(distance, 0.01), distance)
            )
        if recipe.diversity:
            shortfall = diversity_shortfall(fake.float(), self.real_distance, recipe.diversity_target)
            loss = loss + recipe.diversity * shortfall
        note("diversity", pair_distance(fake.detach().float()) / self.real_distance)
        return loss

    def _head_losses(self, real: Tensor, fake: Tensor, z: Tensor, real_c: Tensor, fake_c: Tensor, note: Any) -> Tensor:
        """Return squared errors of coordinates predicted on real and fake, and absolute errors of predicted latents."""
        recipe = self.recipe
        loss = torch.zeros((), device=self.device)
        if recipe.consistency:
            weights = self._predicted / self._predicted.mean().clamp(min=1e-6)
            on_real = (self.spatial_head(real) - real_c).square() * weights
            on_fake = (self.spatial_head(fake) - fake_c).square() * weights
            if recipe.beyond:
                # tanh cannot reach coordinates outside [-1, 1], so samples there are left out.
                on_fake = on_fake * (fake_c.abs() <= 1 + 1e-4).all(dim=1, keepdim=True)
            consistency = on_real.mean() + on_fake.mean()
            loss = loss + recipe.consistency * consistency
            if note:
                note("consistency", consistency)
        if self.latent_head and recipe.content:
            content = F.l1_loss(self.latent_head(fake), z)
            loss = loss + recipe.content * content
            if note:
                note("content", content)
        return loss

    def _macro(self, z: Tensor, positions: Any) -> Tensor:
        """Make macro patches [n, C, K, K] at positions [n, 2]."""
        config, span = self.recipe.model, self.recipe.model.span
        if config.dense:
            # The pixels are the same as patch by patch, but the margins between patches are made only once.
            macro: Tensor = self.generator(z, self._micro_coordinates(positions), (span, span))
            return macro
        cells = config.lattice.inside(positions[:, 0], positions[:, 1]).reshape(-1, 2)  # the row index fastest
        patches = self.generator(z.repeat_interleave(span * span, 0), self._micro_coordinates(cells))
        return assemble(patches, span, span)

    def _micro_coordinates(self, positions: Any) -> Tensor:
        return self._tensor(self.recipe.model.lattice.micro(positions[:, 0], positions[:, 1]))

    def _macro_coordinates(self, positions: Any) -> Tensor:
        return self._tensor(self.recipe.model.lattice.macro(positions[:, 0], positions[:, 1]))

    def _tensor(self, array: Any) -> Tensor:
        return torch.from_numpy(array).to(self.device, torch.float32)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16")

    @torch.no_grad()
    def _average_weights(self) -> None:
        """Follow the generator's effective weights W / sigma(W), because an average of W would have other norms."""
        current, average = plain_state(self.generator), self.average.state_dict()
        names = [name for name in average if average[name].is_floating_point()]
        follow([average[k] for k in names], [current[k] for k in names], self.updates, self.recipe.ema)

    @torch.no_grad()
    def _recalibrate(self, batches: int) -> None:
        norms = [part for part in self.average.modules() if isinstance(part, ConditionalNorm | nn.BatchNorm2d)]
        random = torch.Generator(self.device).manual_seed(0)
        cells, span = self.recipe.model.lattice.cells(), self.recipe.model.span
        usual = [norm.momentum for norm in norms]
        self.average.train()
        for batch in range(batches):
            for norm in norms:
                norm.momentum = 1 / (batch + 1)  # a running mean in which all batches count alike
            count = self.recipe.batch // self.recipe.accumulate * span * span
            latent = torch.rand(count, self.recipe.model.latent, generator=random, device=self.device) * 2 - 1
            chosen = cells[torch.randint(len(cells), (count,), generator=random, device=self.device).cpu().numpy()]
            self.average(latent, self._micro_coordinates(chosen))
        self.average.eval()
        for norm, momentum in zip(norms, usual, strict=True):
            norm.momentum = momentum


def assemble(patches: Tensor, rows: int, columns: int) -> Tensor:
    """Lay patches [n * rows * columns, C, P, Q], row index fastest, into pictures [n, C, rows * P, columns * Q]."""
    _, channels, height, width = patches.shape
    grid = patches.reshape(-1, columns, rows, channels, height, width)
    return grid.permute(0, 3, 2, 4, 1, 5).reshape(-1, channels, rows * height, columns * width)
