"""One training step of the mapper: conditions of generated images to their proxy masks, and D in a second phase."""

from copy import deepcopy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from zellige.errors import TrainingError

from ....engine.files.pictures import contact_sheet, to_uint8
from ....engine.layers.precision import cast_maps
from ....engine.layers.spectral import plain_state
from ....engine.systems.rearranger.conditions import edges_of, one_hot
from ....engine.systems.rearranger.given import as_given, classes_of_picture
from ....engine.systems.rearranger.mapper import mapper_of
from ....engine.systems.rearranger.masks import colours
from ....engine.systems.rearranger.model import PREFIX, read_networks
from ....engine.systems.rearranger.networks import Source
from ....engine.systems.stylegan2.images import drawn
from ...average import fade_rates, follow
from ..stylegan2.training import kept_tensors
from .judge import Judge, update
from .losses import mapped
from .mapper_recipe import MapperRecipe
from .segmenter import Segmenter, fit_segmenter

__all__ = ["MapperTraining"]

_SHOWN = 6  # conditions on a sheet of samples


class MapperTraining:
    """The networks, optimisers and random state of a run, and the step that advances them.

    Args:
        recipe: the run.
        device: the device that it runs on.
        seed: of weights and random numbers.
    Raises:
        TrainingError: maps of classes are to be learnt, and no image is painted.
    """

    system = "rearranger"

    def __init__(self, recipe: MapperRecipe, device: torch.device, seed: int) -> None:
        self.recipe, self.config, self.device = recipe, recipe.config, device
        torch.manual_seed(seed)
        self.networks = read_networks(recipe.base_header, self.config.model_copy(update={"mapper": None}), device)
        half = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
        cast_maps(self.networks, half)
        self.mapper = mapper_of(self.config, trained=False).to(device)
        self.average = deepcopy(self.mapper).eval().requires_grad_(False)
        self.random = torch.Generator(device).manual_seed(seed)
        self.judge = Judge(recipe.base_header, self.config.generator, recipe, device, half, self.random)
        self.rates = {"mapper": recipe.lr, "critic": self.judge.rate}
        adam = torch.optim.Adam(self.mapper.parameters(), lr=recipe.lr, betas=recipe.betas, eps=1e-8)
        self.optimisers = {"mapper": adam, "critic": self.judge.optimiser}
        self.updates = torch.zeros((), dtype=torch.int64)
        self.segmenter = self._segmenter() if recipe.model.kind == "labels" else None

    def modules(self) -> dict[str, nn.Module]:
        """Every network that learns, by name, the averaged one included."""
        return {"mapper": self.mapper, "critic": self.judge.critic, "average": self.average}

    def numbers(self) -> dict[str, Tensor]:
        """Running values outside the networks: updates of the average and of D."""
        return {"updates": self.updates, "judgements": self.judge.updates}

    def step(self, batch: tuple[Tensor, ...], progress: float) -> dict[str, Tensor]:
        """Update the mapper once, and in the second phase the discriminator.

        Args:
            batch: real images, uint8 [B, 3, R, R].
            progress: share of the run that is done, for the learning rates and the phase.
        Returns:
            scalars to log, on the device.
        """
        recipe = self.recipe
        fade_rates(self.optimisers, self.rates, progress, recipe.decay_from)
        judged = recipe.adversarial > 0 and progress >= recipe.plain_until
        with torch.no_grad():
            source = self._source(len(batch[0]))
            mask, condition = self.networks.mask(source), self._condition(source)
            other = self._source(len(batch[0])) if judged else source
        logits = self._logits(self.mapper, condition)
        loss = mapped(logits, mask)
        hits = (logits.argmax(1) == mask).float().mean()
        metrics = {"reconstruction": loss.detach(), "accuracy": hits}
        total = loss * (recipe.reconstruction_late if judged else recipe.reconstruction)
        if judged:
            made = self.networks.image(other, self.networks.moved(other, logits.softmax(1)))
            metrics |= self.judge.update(batch[0], made)
            adversarial = self.judge.realism(made)
            metrics["adversarial"] = adversarial.detach()
            total = total + recipe.adversarial * adversarial
        update(self.optimisers["mapper"], total)
        self._follow()
        return metrics

    def _source(self, count: int, random: torch.Generator | None = None) -> Source:
        """Features of random latents."""
        draws = {"generator": random or self.random, "device": self.device}
        z = torch.randn(count, self.config.generator.z_dim, **draws)  # type: ignore[call-overload]
        generator = self.networks.generator
        return self.networks.source(generator.styles(generator.map(z), self.recipe.psi))

    def _condition(self, source: Source) -> Tensor:
        """What the mapper reads of an image: its edges, or its classes one-hot."""
        if self.segmenter is None:
            return edges_of(self.networks.image(source).clamp(-1, 1))
        with self._autocast():
            labels = self.segmenter(self.networks.generator.maps(source.styles)).argmax(1)
        return one_hot(labels, len(self.recipe.model.names))

    def _segmenter(self) -> Segmenter:
        styles, labels = [], []
        generator, config = self.networks.generator, self.config
        for entry in self.recipe.labelled:
            name, _, path = entry.partition("=")
            (given,), (painted,) = as_given("labelled", name), as_given("labelled", path)
            if given.seed is None or painted.picture is None:
                raise TrainingError(
                    f"{entry!r} names no image of the generator and its painting; write seed:7=mask.png"
                )
            latent = torch.from_numpy(drawn(given.seed[0], 1, config.generator.z_dim, given.seed[1])).to(self.device)
            styles.append(generator.styles(generator.map(latent)))
            labels.append(torch.from_numpy(classes_of_picture(painted, self.recipe.model, config.size[0])))
        if not styles:
            raise TrainingError("maps of classes are learnt from painted images; name one with --set labelled=[...]")
        with torch.no_grad():
            maps = generator.maps(torch.cat(styles))
        classes = len(self.recipe.model.names)
        return fit_segmenter(maps, torch.stack(labels).to(self.device), classes, self.recipe.segmenter_steps)

    @torch.no_grad()
    def _follow(self) -> None:
        follow(list(self.average.parameters()), list(self.mapper.parameters()), self.updates, self.recipe.ema)
        floats = [[b for b in net.buffers() if b.is_floating_point()] for net in (self.average, self.mapper)]
        for mean, now in zip(*floats, strict=True):  # statistics of norms, which are averages already
            mean.copy_(now)

    @torch.no_grad()
    def samples(self) -> npt.NDArray[np.uint8]:
        """A sheet by the averaged mapper, uint8 [H, W, 3].

        Rows: images, conditions, their proxy masks, the mapper's masks, and other images in the mapper's layout.
        """
        random = torch.Generator(self.device).manual_seed(1)
        source, other = self._source(_SHOWN, random), self._source(_SHOWN, random)
        condition = self._condition(source)
        logits = self._logits(self.average, condition)
        rows = [to_uint8(self.networks.image(source)), self._shown(condition)]
        rows += [self._drawn(self.networks.mask(source)), self._drawn(logits.argmax(1))]
        rows += [to_uint8(self.networks.image(other, self.networks.moved(other, logits.softmax(1))))]
        return contact_sheet(np.concatenate(rows), columns=_SHOWN)

    def _shown(self, condition: Tensor) -> npt.NDArray[np.uint8]:
        if self.segmenter is None:
            return to_uint8(condition)
        return np.array(self.recipe.model.palette, np.uint8)[condition.argmax(1).cpu().numpy()]

    def _drawn(self, labels: Tensor) -> npt.NDArray[np.uint8]:
        scale = self.config.size[0] // self.config.split
        found = colours(self.config.clusters)[labels.cpu().numpy()]
        return found.repeat(scale, 1).repeat(scale, 2)

    def model(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and configuration of the model file: all of the rearranger's, and the averaged mapper."""
        plain = read_networks(
            self.recipe.base_header, self.config.model_copy(update={"mapper": None}), torch.device("cpu"), folded=False
        )
        half = self.recipe.storage == "fp16"
        tensors = kept_tensors({PREFIX.removesuffix("."): plain}, half)
        small = torch.float16 if half else torch.float32
        mapper = {
            f"{PREFIX}mapper.{name}": tensor.cpu().contiguous().to(small if tensor.ndim > 1 else torch.float32)
            for name, tensor in plain_state(self.average).items()
            if tensor.is_floating_point()
        }
        return tensors | mapper, self.config.model_dump(mode="json")

    def _logits(self, mapper: nn.Module, condition: Tensor) -> Tensor:
        with self._autocast():
            logits: Tensor = mapper(condition)
        return logits

    def _autocast(self) -> torch.autocast:
        # Without the cache of weights: one that was cast without a graph would pass no gradient later.
        enabled = self.recipe.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled, cache_enabled=False)
