"""One training step of key patches: D on every step or every second one, then the encoder and both decoders."""

from copy import deepcopy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ....engine.files.pictures import contact_sheet, to_uint8
from ....engine.systems.key_patch.networks import Composition, Discriminator, KeyPatchNetworks
from ....kernels.op.levels import values_of
from ...augment import augmented
from ...average import fade_rates, follow
from ...losses import logistic
from .losses import appearance, composite, faded, norm, spatial
from .recipe import KeyPatchRecipe

__all__ = ["KeyPatchTraining"]

_SHOWN = 8  # images a row of a sheet of samples


class KeyPatchTraining:
    """The networks, optimisers and random state of a run, and the step that advances them.

    Args:
        recipe: the run.
        device: where it happens.
        seed: of weights and random numbers.
    """

    system = "key-patch"

    def __init__(self, recipe: KeyPatchRecipe, device: torch.device, seed: int) -> None:
        self.recipe, self.device = recipe, device
        torch.manual_seed(seed)
        self.networks = KeyPatchNetworks(recipe.model)
        self.critic = Discriminator(recipe.model)
        self.average = deepcopy(self.networks).eval().requires_grad_(False)
        for module in self.modules().values():
            module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.rates = {"critic": recipe.lr_critic, "generator": recipe.lr}
        self.optimisers = {
            name: torch.optim.Adam(module.parameters(), lr=self.rates[name], betas=recipe.betas)
            for name, module in (("critic", self.critic), ("generator", self.networks))
        }
        self.random = torch.Generator(device).manual_seed(seed)
        self.updates = torch.zeros((), dtype=torch.int64)
        self._noise = 0.0  # of this step, on what D sees
        self._seen: tuple[Tensor, ...] | None = None

    def modules(self) -> dict[str, nn.Module]:
        """Every network by name, the averaged one included."""
        return {"networks": self.networks, "critic": self.critic, "average": self.average}

    def numbers(self) -> dict[str, Tensor]:
        """Running values outside the networks: the number of averaging updates."""
        return {"updates": self.updates}

    def step(self, batch: tuple[Tensor, ...], progress: float) -> dict[str, Tensor]:
        """One update of D, and none, one or two of the generator, by the recipe's ratio.

        Args:
            batch: images and other images, uint8 [B, 3, R, R]; boxes, int64 [B, K, 4]; patches, uint8 [B, K, 3, R, R].
            progress: share of the run that is done, for the weights of losses and learning rates.
        Returns:
            scalars to log, on the device.
        """
        recipe = self.recipe
        fade_rates(self.optimisers, self.rates, progress, recipe.decay_from)
        real, other = (self._entering(pixels) for pixels in batch[:2])
        union = union_masks(batch[2].to(self.device), recipe.model.size)
        patches = self._noisy(values_of(batch[3].to(self.device)))
        self._seen = (real[:_SHOWN], patches[:_SHOWN], union[:_SHOWN])
        updates = {"2:1": 1 - round(progress * recipe.steps) % 2, "1:1": 1, "1:2": 2}[recipe.ratio]
        self._noise = recipe.instance_noise * (1 - progress)
        metrics: dict[str, Tensor] = {}
        with torch.set_grad_enabled(updates > 0), self._autocast():
            made = self._compose(patches)
        if recipe.objective != "none":
            with self._autocast():
                judging = self._critic_losses(real, other, union, made)
            self._update("critic", torch.stack(list(judging.values())).sum())
            metrics |= {name: loss.detach() for name, loss in judging.items()}
        for update in range(updates):
            with self._autocast():
                losses = self._generator_losses(real, union, made if update == 0 else self._compose(patches), progress)
            self._update("generator", torch.stack([weight * loss for weight, loss in losses.values()]).sum())
            self._follow()
            metrics |= {name: loss.detach() for name, (_, loss) in losses.items()}
        return metrics

    def _noisy(self, patches: Tensor) -> Tensor:
        if not self.recipe.patch_noise:
            return patches
        noise = torch.randn(patches.shape, generator=self.random, device=self.device)
        return (patches + self.recipe.patch_noise * noise).clamp(-1, 1)

    def _compose(self, patches: Tensor) -> Composition:
        z_dim = self.recipe.model.z_dim
        z = torch.rand(len(patches), z_dim, generator=self.random, device=self.device) * 2 - 1 if z_dim else None
        made: Composition = self.networks(patches, z=z)
        return made

    def _critic_losses(self, real: Tensor, other: Tensor, union: Tensor, made: Composition) -> dict[str, Tensor]:
        """The terms of equation 4, or of equation 1."""
        image = made.image.detach()
        fakes = {"made": image}
        if self.recipe.objective == "composites":
            fakes |= {"other_inside": composite(other, real, union), "other_around": composite(real, other, union)}
        if self.recipe.early_composites:
            fakes |= {"made_inside": composite(image, real, union), "made_around": composite(real, image, union)}
        losses = {"critic_real": logistic(self._judge(real), real=True)}
        return losses | {f"critic_{name}": logistic(self._judge(fake), real=False) for name, fake in fakes.items()}

    def _generator_losses(
        self, real: Tensor, union: Tensor, made: Composition, progress: float
    ) -> dict[str, tuple[float, Tensor]]:
        """Weights and terms: L_G, L_S, L_A, and the reconstruction of baseline 3."""
        recipe = self.recipe
        epoch = min(recipe.epochs, 1 + int(progress * recipe.epochs + 1e-9))
        losses: dict[str, tuple[float, Tensor]] = {}
        if recipe.objective != "none":
            losses["adversarial"] = 1.0, logistic(self._judge(made.image), real=True)
        if made.mask is not None:
            weight = faded(recipe.spatial, epoch, recipe.epochs)
            losses["spatial"] = weight, spatial(made.mask, union, recipe.l1)
            weight = faded(recipe.appearance, epoch, recipe.epochs)
            losses["appearance"] = weight, appearance(made.image, made.mask, real, union, recipe.l1)
        if recipe.reconstruction:
            losses["reconstruction"] = recipe.reconstruction, norm(made.image - real, recipe.l1)
        return losses

    def _judge(self, images: Tensor) -> Tensor:
        # Real and fake ones apart: they must not share the statistics of a batch norm. Changes and noise keep a D that
        # knows few images by heart from being certain, so that made images learn from it (Sonderby et al. 2017).
        images = augmented(images, self.recipe.augment, self.random)
        if self._noise:
            images = images + self._noise * torch.randn(images.shape, generator=self.random, device=self.device)
        logits: Tensor = self.critic(images)
        return logits.float()

    def _update(self, name: str, loss: Tensor) -> None:
        optimiser = self.optimisers[name]
        optimiser.zero_grad(set_to_none=True)
        reached = [p for group in optimiser.param_groups for p in group["params"]]
        torch.autograd.backward(loss, inputs=reached)
        optimiser.step()

    @torch.no_grad()
    def _follow(self) -> None:
        follow(list(self.average.parameters()), list(self.networks.parameters()), self.updates, self.recipe.ema)
        floats = [[b for b in net.buffers() if b.is_floating_point()] for net in (self.average, self.networks)]
        for mean, now in zip(*floats, strict=True):  # statistics of norms, which are averages already
            mean.copy_(now)

    @torch.no_grad()
    def samples(self) -> npt.NDArray[np.uint8]:
        """A sheet by the averaged networks, of the last step's images: uint8 [H, W, 3].

        Rows: images; three patches at their places; masks, made and true; made images; what is made under the mask.
        """
        if self._seen is None:
            return np.full((1, 1, 3), 255, np.uint8)
        real, patches, union = self._seen
        z_dim = self.recipe.model.z_dim
        z = torch.zeros(len(patches), z_dim, device=self.device) if z_dim else None
        with self._autocast():
            made = self.average(patches, z=z)
        rows = [real, composite(real, torch.ones_like(real), union), _grey(union, real)]
        rows += [] if made.mask is None else [_grey(made.mask, real)]
        rows += [made.image]
        rows += [] if made.mask is None else [composite(made.image, torch.ones_like(real), made.mask)]
        return contact_sheet(to_uint8(torch.cat(rows)), columns=len(real))

    def model(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and configuration of the model file: averaged networks, and D, whose features describe images."""
        small = torch.float16 if self.recipe.storage == "fp16" else torch.float32
        states = {"networks": self.average, "critic": self.critic}
        tensors = {
            f"{part}.{name}": tensor.detach().cpu().contiguous().to(small if tensor.ndim > 1 else torch.float32)
            for part, network in states.items()
            for name, tensor in network.state_dict().items()
            if not name.endswith("num_batches_tracked")
        }
        return tensors, self.recipe.model.model_dump(mode="json")

    def _entering(self, pixels: Tensor) -> Tensor:
        images = values_of(pixels.to(self.device, non_blocking=True))
        return images.contiguous(memory_format=torch.channels_last)

    def _autocast(self) -> torch.autocast:
        # Without the cache of weights: one that was cast without a graph would pass no gradient later.
        enabled = self.recipe.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled, cache_enabled=False)


def union_masks(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """1 inside of any of an image's boxes, 0 elsewhere: boxes x, y, w, h [B, K, 4] to [B, 1, H, W]."""
    x, y, w, h = boxes.unsqueeze(-1).unbind(2)  # [B, K, 1] each
    rows, columns = (torch.arange(side, device=boxes.device) for side in size)
    down = (rows >= y) & (rows < y + h)  # [B, K, H]
    across = (columns >= x) & (columns < x + w)
    inside = down.unsqueeze(-1) & across.unsqueeze(-2)
    return inside.any(dim=1, keepdim=True).float()


def _grey(mask: Tensor, like: Tensor) -> Tensor:
    return (2 * mask - 1).expand_as(like)
