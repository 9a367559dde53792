"""One training step of OneGAN: three paths forward, a step of the discriminators, a step of all other networks."""

from copy import deepcopy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....engine.files.pictures import contact_sheet, to_uint8
from ....engine.systems.onegan.networks import BackgroundDiscriminator, Composite, ObjectDiscriminator, OneGanNetworks
from ....kernels.op.levels import values_of
from ...average import fade_rates, follow
from .objectives import ROUTES, Terms, critic_terms, generation_terms, learners, reconstruction_terms
from .recipe import OneGanRecipe

__all__ = ["OneGanTraining"]

_SHOWN = 8  # images in a row of the sheet of samples


class OneGanTraining:
    """The networks, optimisers and random state of a run, and the step that advances them.

    Args:
        recipe: recipe of the run.
        device: the device that it runs on.
        seed: of weights and codes.
    """

    system = "onegan"

    def __init__(self, recipe: OneGanRecipe, device: torch.device, seed: int) -> None:
        self.recipe, self.device, config = recipe, device, recipe.model
        torch.manual_seed(seed)
        self.networks = OneGanNetworks(config)
        self.objects = ObjectDiscriminator(config)
        self.backgrounds = BackgroundDiscriminator(config)
        self.average = deepcopy(self.networks).eval().requires_grad_(False)
        for module in self.modules().values():
            module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.learners = learners(self.networks, self.objects)
        critics = [*self.objects.parameters(), *self.backgrounds.parameters()]
        # D_c's class head is in both lists, because it and the generator both want it to read the child class.
        others = [*self.networks.parameters(), *self.objects.classes.parameters()]
        self.rates = {"critic": recipe.lr_critic, "generator": recipe.lr_generator}
        self.optimisers = {
            name: torch.optim.Adam(parameters, lr=self.rates[name], betas=recipe.betas)
            for name, parameters in (("critic", critics), ("generator", others))
        }
        self.random = torch.Generator(device).manual_seed(seed)
        self.updates = torch.zeros((), dtype=torch.int64)
        self._seen: Tensor | None = None

    def modules(self) -> dict[str, nn.Module]:
        """Return every network by name, the averaged ones too."""
        return {
            "networks": self.networks,
            "objects": self.objects,
            "backgrounds": self.backgrounds,
            "average": self.average,
        }

    def numbers(self) -> dict[str, Tensor]:
        """Return the running value outside the networks: the number of averaging updates."""
        return {"updates": self.updates}

    def phase(self, progress: float) -> int:
        """Return the phase at a share of the run: 1 is path G, 2 adds path R of made images, 3 path R of real ones."""
        return 1 + sum(progress >= start for start in self.recipe.phases)

    def step(self, batch: tuple[Tensor, ...], progress: float) -> dict[str, Tensor]:
        """Take a step of both discriminators, then one of generators, encoders and tables, on the same made images.

        Args:
            batch: images of objects, uint8 [B, 3, R, R]; backgrounds, uint8 [B, 3, R, R].
            progress: share of the run that is done, for phases and learning rates.
        Returns:
            scalars to log, on the device.
        """
        recipe = self.recipe
        fade_rates(self.optimisers, self.rates, progress, recipe.decay_from)
        images, grounds = (self._entering(pixels) for pixels in batch)
        self._seen = images[:_SHOWN]
        phase = self.phase(progress)
        # Every other step takes ordinary codes, because the easy ones would be forgotten.
        hard = progress >= recipe.hard_from and round(progress * recipe.steps) % 2 == 0
        child, parent, latent = self._hard_codes(len(images)) if hard else self.networks.draw(len(images), self.random)
        with self._autocast():
            made = self.networks.generate(self.networks.codes(child, parent, latent))
            image = made.image.detach()
            of_made = self._again(image) if phase >= 2 else None
            of_real = self._again(images) if phase >= 3 else None

        judging = Terms(recipe.weights)
        again = [each for each in (of_made, of_real) if each is not None] if recipe.judged == "all" else []
        with self._autocast():
            critic_terms(judging, self.objects, self.backgrounds, images, grounds, child, made, again)
        self.optimisers["critic"].zero_grad(set_to_none=True)
        if (total := judging.total()) is not None:
            total.backward()
        self.optimisers["critic"].step()

        making = Terms(recipe.weights)
        with self._autocast():
            share = recipe.mask_share
            generation_terms(making, self.networks, self.objects, self.backgrounds, child, parent, made, share)
            if of_made is not None:
                truth = (child, parent, made)
                reconstruction_terms(making, self.objects, self.backgrounds, image, of_made, truth, share)
            if of_real is not None:
                reconstruction_terms(making, self.objects, self.backgrounds, images, of_real, None, share)
        self.optimisers["generator"].zero_grad(set_to_none=True)
        self._backward(making)
        self.optimisers["generator"].step()
        follow(list(self.average.parameters()), list(self.networks.parameters()), self.updates, recipe.ema)
        shares = {"mask_share": made} | ({} if of_real is None else {"again_mask_share": of_real})
        means = {name: composite.mask.detach().mean() for name, composite in shares.items()}
        return dict(judging.detached()) | dict(making.detached()) | means

    @torch.no_grad()
    def samples(self) -> npt.NDArray[np.uint8]:
        """Return a sheet of rows, uint8 [H, W, 3], made by the averaged networks.

        Four rows are from fixed codes: images, foregrounds, masks, backgrounds. Then come the last step's real images,
        and the same four rows from path R of them.
        """
        config = self.recipe.model
        child = torch.arange(_SHOWN, device=self.device) * config.children // _SHOWN
        parent = child * config.parents // config.children
        latent = torch.randn(_SHOWN, config.latent, generator=torch.Generator().manual_seed(0)).to(self.device)
        with self._autocast():
            rows = _rows(self.average.generate(self.average.codes(child, parent, latent)))
            if self._seen is not None:
                rows += [self._seen, *_rows(self.average.reconstruct(self._seen))]
        blank = rows[0].new_ones(1, *rows[0].shape[1:])
        filled = [torch.cat([row, blank.expand(_SHOWN - len(row), -1, -1, -1)]) for row in rows]
        return contact_sheet(to_uint8(torch.cat(filled)), columns=_SHOWN)

    def model(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and configuration of the model file: the averaged generators, encoders and tables."""
        small = torch.float16 if self.recipe.storage == "fp16" else torch.float32
        tensors = {
            f"networks.{name}": tensor.detach().cpu().contiguous().to(small if tensor.ndim > 1 else torch.float32)
            for name, tensor in self.average.state_dict().items()
        }
        return tensors, self.recipe.model.model_dump(mode="json")

    def _entering(self, pixels: Tensor) -> Tensor:
        images = values_of(pixels.to(self.device, non_blocking=True))
        return images.contiguous(memory_format=torch.channels_last)

    def _again(self, images: Tensor) -> Composite:
        """Run path R as in training: codes are drawn around those that were read off, and pre-images are mixed."""
        beta, background_beta = self.networks.draw_mix(len(images), self.random)
        return self.networks.reconstruct(
            images, beta=beta, background_beta=background_beta, sample=True, random=self.random
        )

    @torch.no_grad()
    def _hard_codes(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draw several times as many codes, and keep those whose child class D_c is least sure of (as FineGAN does)."""
        drawn = self.networks.draw(count * self.recipe.hard_choice, self.random)
        surprise = []
        for child, parent, latent in zip(*(codes.split(count) for codes in drawn), strict=True):
            with self._autocast():
                made = self.networks.generate(self.networks.codes(child, parent, latent))
                classes = self.objects(made.foreground * made.mask).auxiliary
            surprise.append(F.cross_entropy(classes, child, reduction="none"))
        worst = torch.cat(surprise).topk(count).indices
        child, parent, latent = (codes[worst] for codes in drawn)
        return child, parent, latent

    def _backward(self, terms: Terms) -> None:
        for names, parts in ROUTES:
            total = terms.total(names)
            if total is not None:
                reached = [parameter for part in parts for parameter in self.learners[part]]
                # Other routes need the same autograd graph.
                torch.autograd.backward(total, inputs=reached, retain_graph=True)

    def _autocast(self) -> torch.autocast:
        # The cache of weights is off, because a weight that was cast without gradients would pass none later.
        enabled = self.recipe.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled, cache_enabled=False)


def _rows(composite: Composite) -> list[Tensor]:
    mask = (2 * composite.mask - 1).expand_as(composite.image)
    return [composite.image, composite.foreground, mask, composite.background]
