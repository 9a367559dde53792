"""One training step of StyleGAN2: the discriminator, R1 in some steps, the generator, path lengths in some steps."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ....engine.files.pictures import contact_sheet, to_uint8
from ....engine.systems.stylegan2.discriminator import Discriminator
from ....engine.systems.stylegan2.generator import Generator
from ....kernels.op.levels import values_of
from ...augment import augmented
from ...average import fade_rates, follow
from ...losses import logistic
from .losses import gradient_square, path_lengths
from .recipe import StyleGan2Recipe

__all__ = ["StyleGan2Training", "kept_tensors"]

_SHOWN = 6, 10  # rows and columns of a sheet of samples


class StyleGan2Training:
    """The networks, optimisers and random state of a run, and the step that advances them.

    Args:
        recipe: the run.
        device: the device that it runs on.
        seed: of weights and random numbers.
    """

    system = "stylegan2"

    def __init__(self, recipe: StyleGan2Recipe, device: torch.device, seed: int) -> None:
        self.recipe, self.device = recipe, device
        torch.manual_seed(seed)
        self.generator, self.critic = Generator(recipe.model), Discriminator(recipe.model)
        self.generator.map_dtype = self.critic.map_dtype = (
            torch.bfloat16 if recipe.precision == "bf16" else torch.float32
        )
        self.average = deepcopy(self.generator).eval().requires_grad_(False)
        for module in self.modules().values():
            module.to(device)
        self.rates, self.optimisers = dict[str, float](), dict[str, torch.optim.Adam]()
        # An update by a regularisation is one more step of Adam, so rate and moments shrink (Karras et al. 2020, B).
        for name, module, rate, every in (
            ("critic", self.critic, recipe.lr_critic, recipe.r1_every if recipe.r1 else 0),
            ("generator", self.generator, recipe.lr, recipe.path_every if recipe.path else 0),
        ):
            share = every / (every + 1) if every else 1.0
            betas = recipe.betas[0] ** share, recipe.betas[1] ** share
            self.rates[name] = rate * share
            self.optimisers[name] = torch.optim.Adam(module.parameters(), lr=rate * share, betas=betas, eps=1e-8)
        self.random = torch.Generator(device).manual_seed(seed)
        self.updates = torch.zeros((), dtype=torch.int64)
        self.mean_length = torch.zeros((), device=device)

    def modules(self) -> dict[str, nn.Module]:
        """Every network by name, the averaged one included."""
        return {"generator": self.generator, "critic": self.critic, "average": self.average}

    def numbers(self) -> dict[str, Tensor]:
        """Running values outside the networks: the number of averaging updates, and the mean length of paths."""
        return {"updates": self.updates, "mean_length": self.mean_length}

    def step(self, batch: tuple[Tensor, ...], progress: float) -> dict[str, Tensor]:
        """Update the discriminator and the generator once, and by their regularisations in every so many steps.

        Args:
            batch: images, uint8 [B, 3, R, R].
            progress: share of the run that is done, for the learning rates and the number of the step.
        Returns:
            scalars to log, on the device.
        """
        recipe, number = self.recipe, round(progress * self.recipe.steps)
        fade_rates(self.optimisers, self.rates, progress, recipe.decay_from)
        real = values_of(batch[0].to(self.device, non_blocking=True))
        metrics = self._update_critic(real)
        if recipe.r1 and number % recipe.r1_every == 0:
            metrics["r1"] = self._regularise_critic(real)
        metrics |= self._update_generator(len(real))
        if recipe.path and number % recipe.path_every == 0:
            metrics["path_length"] = self._regularise_generator(len(real))
        self._follow()
        return metrics

    def _update_critic(self, real: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            made = self._made(self._styles(len(real)))
        logits = self._judge(made), self._judge(real)
        losses = logistic(logits[0], real=False), logistic(logits[1], real=True)
        self._update("critic", losses[0] + losses[1])
        signs = (logits[1] > 0).float().mean() - (logits[1] < 0).float().mean()
        return {"critic_made": losses[0].detach(), "critic_real": losses[1].detach(), "overfitting": signs}

    def _regularise_critic(self, real: Tensor) -> Tensor:
        seen = augmented(real, self.recipe.augment, self.random)
        square = gradient_square(self.critic, seen)
        self._update("critic", square * (self.recipe.r1 / 2 * self.recipe.r1_every))
        return square.detach()

    def _update_generator(self, count: int) -> dict[str, Tensor]:
        loss = logistic(self._judge(self._made(self._styles(count))), real=True)
        self._update("generator", loss)
        return {"generator": loss.detach()}

    def _regularise_generator(self, count: int) -> Tensor:
        recipe = self.recipe
        styles = self._styles(max(1, round(count * recipe.path_batch)))
        lengths = path_lengths(self._made(styles), styles, self.random)
        mean = torch.lerp(self.mean_length, lengths.mean(), recipe.path_decay)
        penalty = (lengths - mean).square().mean()
        self._update("generator", penalty * (recipe.path * recipe.path_every))
        self.mean_length.copy_(mean.detach())
        return lengths.detach().mean()

    def _styles(self, count: int) -> Tensor:
        """Style vectors [N, L, w_dim] of random latents; some images take those of a second one from a layer on."""
        config, draws = self.recipe.model, {"generator": self.random, "device": self.device}
        z = torch.randn(2, count, config.z_dim, **draws)  # type: ignore[call-overload]
        w = self.generator.map(z[0])
        if torch.is_grad_enabled():
            self.generator.w_avg.lerp_(w.detach().mean(0), 1 - self.recipe.w_decay)
        styles = self.generator.styles(w)
        if not self.recipe.mixing or config.style_count < 2:
            return styles
        crossover = torch.randint(1, config.style_count, (count,), **draws)  # type: ignore[call-overload]
        mixed = torch.rand(count, **draws) < self.recipe.mixing  # type: ignore[call-overload]
        layers = torch.arange(config.style_count, device=self.device)
        second = mixed[:, None] & (layers >= crossover[:, None])
        return torch.where(second[..., None], self.generator.map(z[1])[:, None], styles)

    def _made(self, styles: Tensor) -> Tensor:
        noise = [
            torch.randn(len(styles), 1, side, side, generator=self.random, device=self.device)
            for side in self.recipe.model.noise_sides
        ]
        return self.generator.synthesise(styles, noise)

    def _judge(self, images: Tensor) -> Tensor:
        logits: Tensor = self.critic(augmented(images, self.recipe.augment, self.random))
        return logits

    def _update(self, name: str, loss: Tensor) -> None:
        optimiser = self.optimisers[name]
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss, inputs=[p for group in optimiser.param_groups for p in group["params"]])
        optimiser.step()

    @torch.no_grad()
    def _follow(self) -> None:
        follow(list(self.average.parameters()), list(self.generator.parameters()), self.updates, self.recipe.ema)
        self.average.w_avg.copy_(self.generator.w_avg)  # a mean already; noise maps never change

    @torch.no_grad()
    def samples(self) -> npt.NDArray[np.uint8]:
        """A sheet by the averaged generator, uint8 [H, W, 3]: of the same latents every time, the lower half truncated.

        Truncated images have psi 0.7.
        """
        rows, columns = _SHOWN
        random = torch.Generator().manual_seed(0)
        z = torch.randn(rows // 2 * columns, self.recipe.model.z_dim, generator=random).to(self.device)
        made = [self.average(z, psi) for psi in (1.0, 0.7)]
        return contact_sheet(to_uint8(torch.cat(made).clamp(-1, 1)), columns=columns)

    def model(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and configuration of the model file: the averaged generator, and the discriminator if it is kept."""
        networks: dict[str, nn.Module] = {"generator": self.average}
        networks |= {"discriminator": self.critic} if self.recipe.keep_critic else {}
        return kept_tensors(networks, self.recipe.storage == "fp16"), self.recipe.model.model_dump(mode="json")


def kept_tensors(networks: Mapping[str, nn.Module], half: bool) -> dict[str, Tensor]:
    """The tensors of networks for a model file; matrices and kernels are float16 if `half`, all others float32."""
    return {
        f"{part}.{name}": tensor.detach()
        .cpu()
        .contiguous()
        .to(torch.float16 if half and tensor.ndim > 1 else torch.float32)
        for part, network in networks.items()
        for name, tensor in network.state_dict().items()
    }
