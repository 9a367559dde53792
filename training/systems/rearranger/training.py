"""One training step of the rearranger: its own mask for reconstruction, another one for the layout, D for realism."""

from copy import deepcopy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ....engine.files.pictures import contact_sheet, to_uint8
from ....engine.layers.precision import cast_maps
from ....engine.systems.rearranger.masks import colours, fit_centroids
from ....engine.systems.rearranger.networks import RearrangerNetworks, Source
from ....engine.systems.stylegan2.generator import Features, Generator
from ....engine.systems.stylegan2.model import read_generator
from ...average import fade_rates, follow
from ..stylegan2.training import kept_tensors
from .judge import Judge, update
from .losses import masked, reconstruction
from .recipe import RearrangerRecipe

__all__ = ["RearrangerTraining"]

_AT_ONCE = 16  # samples whose features are made at once
_SHOWN = 6  # sources and masks of a sheet of samples


class RearrangerTraining:
    """The networks, optimisers and random state of a run, and the step that advances them.

    Args:
        recipe: the run.
        device: the device that it runs on.
        seed: of weights, centroids and random numbers.
    """

    system = "rearranger"

    def __init__(self, recipe: RearrangerRecipe, device: torch.device, seed: int) -> None:
        self.recipe, self.config, self.device = recipe, recipe.config, device
        torch.manual_seed(seed)
        generator: Generator = read_generator(recipe.base_header, self.config.generator, device)
        generator.scale_activations()
        half = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
        cast_maps(generator, half)
        self.networks = RearrangerNetworks(self.config, generator).to(device)
        self.networks.generator.requires_grad_(False)
        self.average = deepcopy(self.networks.rearranger).eval().requires_grad_(False)
        for network in (self.networks.rearranger, self.average):
            network.map_dtype = half
        self.random = torch.Generator(device).manual_seed(seed)
        self._fit_centroids(seed)
        self.judge = Judge(recipe.base_header, self.config.generator, recipe, device, half, self.random)
        self.rates = {"rearranger": recipe.lr, "critic": self.judge.rate}
        adam = torch.optim.Adam(self.networks.rearranger.parameters(), lr=recipe.lr, betas=recipe.betas, eps=1e-8)
        self.optimisers = {"rearranger": adam, "critic": self.judge.optimiser}
        self.updates = torch.zeros((), dtype=torch.int64)

    def modules(self) -> dict[str, nn.Module]:
        """Every network that learns, by name, the averaged one included."""
        return {"rearranger": self.networks.rearranger, "critic": self.judge.critic, "average": self.average}

    def numbers(self) -> dict[str, Tensor]:
        """Running values outside the networks: updates of the average and of D, centroids, deviations of features."""
        return {
            "updates": self.updates, "judgements": self.judge.updates, "deviation": self.deviation,
        }  # fmt: skip

    def step(self, batch: tuple[Tensor, ...], progress: float) -> dict[str, Tensor]:
        """Update the rearranger once, and the discriminator in the steps in which it judges.

        Args:
            batch: real images, uint8 [B, 3, R, R].
            progress: share of the run that is done, for the learning rates, the phase and the number of the step.
        Returns:
            scalars to log, on the device.
        """
        recipe, number = self.recipe, round(progress * self.recipe.steps)
        fade_rates(self.optimisers, self.rates, progress, recipe.decay_from)
        judged = recipe.adversarial > 0 and (progress >= recipe.rare_until or number % recipe.rare == 0)
        with torch.no_grad():
            own, other = self._source(len(batch[0])), self._source(len(batch[0]))
            masks = self.networks.mask(own), self.networks.mask(other)
            wanted = self.networks.image(own)
        metrics: dict[str, Tensor] = {}
        losses = self._self_losses(own, masks[0], wanted)
        moved = self.networks.moved(own, masks[1])
        losses["mask"] = recipe.mask, masked(moved.map, masks[1], self.networks.centroids, recipe.sharpness)
        if judged:
            made = self.networks.image(own, moved)
            metrics = self.judge.update(batch[0], made)
            losses["adversarial"] = recipe.adversarial, self.judge.realism(made)
        total = torch.stack([weight * loss for weight, loss in losses.values()]).sum()
        update(self.optimisers["rearranger"], total)
        follow(list(self.average.parameters()), list(self.networks.rearranger.parameters()), self.updates, recipe.ema)
        return metrics | {name: loss.detach() for name, (_, loss) in losses.items()}

    def _self_losses(self, own: Source, mask: Tensor, wanted: Tensor) -> dict[str, tuple[float, Tensor]]:
        """Weights and terms of L_self: sources, some of them mirrored, are put back to where their own mask is."""
        recipe = self.recipe
        flipped = torch.rand(len(mask), generator=self.random, device=self.device) < 0.5 * recipe.flip
        given = Source(own.styles, _mirrored(own.features, flipped))
        moved = self.networks.moved(given, mask)
        terms = reconstruction((moved.map, own.features.map), (self.networks.image(own, moved), wanted), self.deviation)
        return {"self_features": (recipe.self_features, terms[0]), "self_images": (recipe.self_images, terms[1])}

    def _source(self, count: int, random: torch.Generator | None = None) -> Source:
        """Features of random latents."""
        draws = {"generator": random or self.random, "device": self.device}
        z = torch.randn(count, self.config.generator.z_dim, **draws)  # type: ignore[call-overload]
        generator = self.networks.generator
        return self.networks.source(generator.styles(generator.map(z), self.recipe.psi))

    @torch.no_grad()
    def _fit_centroids(self, seed: int) -> None:
        random, maps = torch.Generator(self.device).manual_seed(seed), []
        for start in range(0, self.recipe.samples, _AT_ONCE):
            maps.append(self._source(min(_AT_ONCE, self.recipe.samples - start), random).features.map.float())
        self.networks.centroids.copy_(fit_centroids(maps, self.config, seed))
        self.deviation = torch.cat(maps).std((0, 2, 3)).clamp(min=1e-6)

    @torch.no_grad()
    def samples(self) -> npt.NDArray[np.uint8]:
        """A sheet by the averaged rearranger, uint8 [H, W, 3]: a row for each source, a column for each mask.

        The first row shows the images that masks are of, the second the masks, the first column the sources.
        """
        random = torch.Generator(self.device).manual_seed(1)
        sources, masks = self._source(_SHOWN, random), self._source(_SHOWN, random)
        labels = self.networks.mask(masks)
        trained, self.networks.rearranger = self.networks.rearranger, self.average
        try:
            rows = [_blank(self.config.size), *to_uint8(self.networks.image(masks))]
            rows += [_blank(self.config.size), *self._drawn(labels)]
            for k, picture in enumerate(to_uint8(self.networks.image(sources))):
                one = _repeated(sources, k, _SHOWN)
                rows += [picture, *to_uint8(self.networks.image(one, self.networks.moved(one, labels)))]
        finally:
            self.networks.rearranger = trained
        return contact_sheet(np.stack(rows), columns=_SHOWN + 1)

    def _drawn(self, labels: Tensor) -> npt.NDArray[np.uint8]:
        scale = self.config.size[0] // self.config.split
        found = colours(self.config.clusters)[labels.cpu().numpy()]
        return found.repeat(scale, 1).repeat(scale, 2)

    def model(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and configuration of the model file: the generator as it was, centroids and averaged rearranger."""
        recipe = self.recipe
        networks: dict[str, nn.Module] = {
            "networks.generator": read_generator(recipe.base_header, self.config.generator, torch.device("cpu")),
            "networks.rearranger": self.average,
        }
        networks |= {"discriminator": self.judge.critic} if recipe.keep_critic else {}
        tensors = kept_tensors(networks, recipe.storage == "fp16")
        tensors["networks.centroids"] = self.networks.centroids.cpu().clone()
        return tensors, self.config.model_dump(mode="json")


def _mirrored(features: Features, which: Tensor) -> Features:
    """Features of which some samples are mirrored."""
    chosen = which[:, None, None, None]
    rgb = None if features.rgb is None else torch.where(chosen, features.rgb.flip(3), features.rgb)
    return Features(torch.where(chosen, features.map.flip(3), features.map), rgb, features.after)


def _repeated(source: Source, index: int, count: int) -> Source:
    """One sample of a source, so many times."""

    def again(x: Tensor) -> Tensor:
        return x[index : index + 1].expand(count, *x.shape[1:])

    rgb = None if source.features.rgb is None else again(source.features.rgb)
    return Source(again(source.styles), Features(again(source.features.map), rgb, source.features.after))


def _blank(size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    return np.full((*size, 3), 255, np.uint8)
