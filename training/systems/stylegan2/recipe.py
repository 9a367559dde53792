"""A run of StyleGAN2: networks, data, losses, schedule."""

from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field

from ....engine.systems.stylegan2.config import StyleGan2Config
from ...augment import Augmentation
from ...data.sources import Pictures, open_pictures
from ...recipe import Betas, Rate, Recipe
from .items import Images

if TYPE_CHECKING:
    from .training import StyleGan2Training

__all__ = ["StyleGan2Recipe"]


class StyleGan2Recipe(Recipe):
    """A run of StyleGAN2. The defaults are those of its configuration F."""

    system: ClassVar[str] = "stylegan2"
    remedy: ClassVar[str] = (
        "lower the learning rates (--set lr=1e-3 --set lr_critic=1e-3) or compute in full precision "
        "(--set precision=fp32)"
    )

    data: str = Field("emoji-faces", description="Data set name or folder, unless --data names another.")
    model: StyleGan2Config = Field(default_factory=StyleGan2Config, description="The generator.")
    batch: int = Field(32, ge=2, le=65_536, description="Images a step.")
    mirror: bool = Field(True, description="Mirror half of the images.")
    lr: Rate = Field(2e-3, description="Adam's learning rate for the generator.")
    lr_critic: Rate = Field(2e-3, description="Adam's learning rate for the discriminator.")
    betas: Betas = Field((0.0, 0.99), description="Adam's moments.")
    r1: float = Field(10.0, ge=0, description="Weight gamma of R1, gamma / 2 times the squared gradient.")
    r1_every: int = Field(16, ge=1, le=1000, description="Steps between updates by R1, which weigh as many steps.")
    path: float = Field(2.0, ge=0, description="Weight of the path length regularisation.")
    path_every: int = Field(4, ge=1, le=1000, description="Steps between updates by it, which weigh as many steps.")
    path_decay: float = Field(0.01, gt=0, le=1, description="Share of a batch's lengths in their running mean.")
    path_batch: float = Field(0.5, gt=0, le=1, description="Share of the batch that path lengths are measured on.")
    mixing: float = Field(0.9, ge=0, le=1, description="Share of images whose layers take styles of two latents.")
    w_decay: float = Field(0.995, ge=0, lt=1, description="Decay of the mean of style vectors.")
    augment: tuple[Augmentation, ...] = Field(
        (), description="Random changes of all that D sees: colour, translation, cutout; for few images."
    )
    keep_critic: bool = Field(True, description="Keep the discriminator in the model file, for a rearranger.")

    def start(self, device: torch.device, seed: int) -> "StyleGan2Training":
        """The networks, optimisers and random state of a run before its first step."""
        from .training import StyleGan2Training  # that file imports this one

        return StyleGan2Training(self, device, seed)

    def open_data(self, seed: int) -> Pictures:
        """Pictures of the model's resolution."""
        return open_pictures(self.data, self.model.size, "plane", seed=seed)

    def items(self, data: Pictures, seed: int) -> Images:
        """Images."""
        return Images(data, seed, mirror=self.mirror)
