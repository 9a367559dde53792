"""The recipe of a COCO-GAN training run; every field is a line of the paper's table, or ours."""

from typing import TYPE_CHECKING, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator

from ....engine.systems.coco_gan.config import CocoGanConfig
from ...data.sources import Pictures, open_pictures
from ...losses import Adversarial
from ...recipe import Betas, Rate, Recipe
from .items import MacroPatches, Sampling

if TYPE_CHECKING:
    from .training import CocoGanTraining

__all__ = ["CocoGanRecipe"]


class CocoGanRecipe(Recipe):
    """A COCO-GAN training run; defaults are the paper's."""

    system: ClassVar[str] = "coco-gan"
    remedy: ClassVar[str] = (
        "lower the learning rates (--set lr_critic=1e-4) or raise the gradient penalty a little (--set penalty=15)"
    )

    model: CocoGanConfig = Field(default_factory=CocoGanConfig, description="The networks.")
    sampling: Sampling = Field("lattice", description="Whether cyclic axes are trained on lattice positions or on all.")
    beyond: int = Field(
        0, ge=0, le=64, description="Beyond-boundary post-training: extra patches on each side; 0 is ordinary."
    )

    loss: Adversarial = Field("wasserstein", description="Adversarial loss.")
    penalty: float = Field(10.0, ge=0, description="Weight of the gradient penalty.")
    consistency: float = Field(100.0, ge=0, description="Weight of the coordinate prediction's squared error.")
    consistency_axes: Literal["all", "open"] = Field(
        "all", description="Coordinates that head A predicts; 'open' leaves out the angle of cyclic axes."
    )
    content: float = Field(0.0, ge=0, description="Weight of head Q's absolute error; needs model.latent_head.")
    diversity: float = Field(0.0, ge=0, description="Weight of the shortfall of variety between latents.")
    diversity_target: float = Field(1.0, gt=0, description="Variety wanted, as a ratio to the data's.")

    batch: int = Field(
        128, ge=2, le=65_536, multiple_of=2, description="Macro patches a step; even, since items come in pairs."
    )
    accumulate: int = Field(1, ge=1, description="Parts that a batch is split into, to save memory.")
    lr_generator: Rate = Field(1e-4, description="Adam's learning rate for generator and head A.")
    lr_critic: Rate = Field(4e-4, description="Adam's learning rate for discriminator and head A.")
    lr_latent: Rate = Field(1e-4, description="Adam's learning rate for head Q.")
    betas: Betas = Field((0.0, 0.999), description="Adam's moments.")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.batch % (2 * self.accumulate):
            raise ValueError(
                f"a batch of {self.batch} does not split into {self.accumulate} parts of whole pairs; "
                f"batch must be a multiple of {2 * self.accumulate}"
            )
        if self.beyond and self.model.topology == "torus":
            raise ValueError("a torus has no boundary, so that nothing lies beyond it; set beyond to 0")
        if self.content and not self.model.latent_head:
            raise ValueError("content weighs the error of head Q, which the model lacks; set model.latent_head too")
        return self

    def start(self, device: torch.device, seed: int) -> "CocoGanTraining":
        """Make the networks, optimisers and random state of a run before its first step."""
        from .training import CocoGanTraining  # it imports this file

        return CocoGanTraining(self, device, seed)

    def open_data(self, seed: int) -> Pictures:
        """Open pictures of the model's resolution."""
        return open_pictures(self.data, self.model.size, self.model.topology, seed=seed)

    def items(self, data: Pictures, seed: int) -> MacroPatches:
        """Return macro patches and their positions."""
        return MacroPatches(data, self.model.lattice, self.model.patch, seed, self.sampling)
