"""A run of the rearranger, for a generator that stays as it was trained."""

from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field

from zellige.errors import TrainingError

from ....engine.checkpoint.file import Header, read_header, validated
from ....engine.library import find
from ....engine.systems.rearranger.config import RearrangerConfig
from ....engine.systems.stylegan2.config import StyleGan2Config
from ...augment import Augmentation
from ...data.sources import Pictures, open_pictures
from ...recipe import Betas, Rate, Recipe
from ..stylegan2.items import Images

if TYPE_CHECKING:
    from .training import RearrangerTraining

__all__ = ["JudgedRecipe", "RearrangerRecipe"]


class JudgedRecipe(Recipe):
    """What the runs of rearranger and mapper have in common: a frozen base, a learner, and a discriminator."""

    system: ClassVar[str] = "rearranger"
    remedy: ClassVar[str] = "lower the learning rates (--set lr=5e-4), or compute in full precision"

    batch: int = Field(8, ge=2, le=4096, description="Images a step.")
    lr: Rate = Field(2e-3, description="Adam's learning rate for what learns.")
    lr_critic: Rate = Field(2e-3, description="Adam's learning rate for the discriminator.")
    betas: Betas = Field((0.0, 0.99), description="Adam's moments.")
    r1: float = Field(10.0, ge=0, description="Weight gamma of R1.")
    r1_every: int = Field(16, ge=1, le=1000, description="Updates of the discriminator between those by R1.")
    psi: float = Field(1.0, ge=0, le=2, description="Truncation of the generator's style vectors.")
    augment: tuple[Augmentation, ...] = Field(
        (), description="Random changes of all that D sees: colour, translation, cutout; for few images."
    )

    @property
    def config(self) -> RearrangerConfig:
        """The configuration of the networks, with the parts that the base has."""
        raise NotImplementedError

    def open_data(self, seed: int) -> Pictures:
        """Pictures of the generator's resolution."""
        return open_pictures(self.data, self.config.size, "plane", seed=seed)

    def items(self, data: Pictures, seed: int) -> Images:
        """Images."""
        return Images(data, seed)


class RearrangerRecipe(JudgedRecipe):
    """A run of the rearranger, stage 1. The defaults are the paper's where it gives any."""

    data: str = Field("emoji-faces", description="Real images for the discriminator; those the generator learnt from.")
    base: str = Field("faces", description="The generator: a bundled StyleGAN2's name, or the path of a checkpoint.")
    model: RearrangerConfig = Field(
        default_factory=RearrangerConfig, description="The networks; the generator's part is read from `base`."
    )
    samples: int = Field(256, ge=1, le=65_536, description="Samples whose features make the centroids of proxy masks.")
    adversarial: float = Field(1.0, ge=0, description="Weight of L_adv; 0 trains without a discriminator.")
    self_features: float = Field(10.0, ge=0, description="Weight of L_self on features.")
    self_images: float = Field(10.0, ge=0, description="Weight of L_self on images.")
    mask: float = Field(1.0, ge=0, description="Weight of L_mask.")
    sharpness: float = Field(10.0, gt=0, description="Factor of the cosines that are L_mask's logits.")
    rare: int = Field(5, ge=1, le=1000, description="In the first phase L_adv comes once in so many steps.")
    rare_until: float = Field(0.71, ge=0, le=1, description="Share of the run that is the first phase; 100 of 140.")
    flip: bool = Field(
        True, description="Mirror half of the sources against their own masks, so that no copy is right."
    )
    keep_critic: bool = Field(False, description="Keep the discriminator in the model file.")

    @cached_property
    def base_header(self) -> Header:
        """The header of the generator's checkpoint.

        Raises:
            TrainingError: it is no StyleGAN2.
        """
        header = read_header(find(self.base))
        if header.system != "stylegan2":
            raise TrainingError(
                f"{self.base} holds a {header.system} model; a rearranger needs a stylegan2 as its base"
            )
        return header

    @cached_property
    def config(self) -> RearrangerConfig:
        """The configuration with the generator's own."""
        generator = validated(self.base_header, StyleGan2Config)
        settings: dict[str, Any] = self.model.model_dump() | {"generator": generator.model_dump()}
        return RearrangerConfig.model_validate(settings)

    def start(self, device: torch.device, seed: int) -> "RearrangerTraining":
        """The networks, optimisers and random state of a run before its first step."""
        from .training import RearrangerTraining  # that file imports this one

        return RearrangerTraining(self, device, seed)
