"""The recipe of a OneGAN run. The paper gives L_Rv, L_RM and the order of its phases; all other numbers are ours.

If its relatives FineGAN or MixNMatch have a number for the same thing, their number is the default.
"""

from typing import TYPE_CHECKING, ClassVar, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ....engine.systems.onegan.config import OneGanConfig
from ...data.scenes import Scenes
from ...data.sources import open_scenes
from ...recipe import Betas, Rate, Recipe
from .items import SceneItems

if TYPE_CHECKING:
    from .training import OneGanTraining

__all__ = ["OneGanRecipe", "OneGanWeights"]


class OneGanWeights(BaseModel):
    """The weights of all terms; 0 leaves a term out. D_c judges whole images, D_bg patches of backgrounds."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # Terms of D_c and D_bg.
    critic: float = Field(1.0, ge=0, description="D_c: real images from made ones.")
    critic_child: float = Field(1.0, ge=0, description="D_c: the child class of a foreground that was made from it.")
    critic_background: float = Field(10.0, ge=0, description="D_bg: real backgrounds from made ones, by patches.")
    critic_auxiliary: float = Field(1.0, ge=0, description="D_bg: real backgrounds from images with an object.")

    # Path G.
    adversarial: float = Field(1.0, ge=0, description="Made images are real to D_c.")
    background: float = Field(10.0, ge=0, description="Made backgrounds are real to D_bg.")
    auxiliary: float = Field(1.0, ge=0, description="Made backgrounds hold no object to D_bg.")
    child: float = Field(1.0, ge=0, description="D_c reads the child class off the foreground.")
    parent: float = Field(1.0, ge=0, description="E_p reads the parent class off the image.")
    vectors: float = Field(0.01, ge=0, description="L_Rv: embeddings are near the origin.")
    mask: float = Field(1.0, ge=0, description="L_RM: masks cover their share of the picture, and are decided.")

    # Path R of made images, whose codes and parts are known.
    encoded_classes: float = Field(1.0, ge=0, description="E_c and E_p read the classes; 10 in MixNMatch.")
    encoded_vectors: float = Field(1.0, ge=0, description="E_c and E_p read v_c, v_p and z: negative log-likelihood.")
    encoded_mask: float = Field(1.0, ge=0, description="The mask again: L1.")
    encoded_background: float = Field(1.0, ge=0, description="The background again, behind the object too: L1.")

    # Path R of made and of real images.
    pixels: float = Field(1.0, ge=0, description="The image again: L1.")
    features: float = Field(1.0, ge=0, description="The image again, as D_c sees it: L1 of features.")
    divergence: float = Field(0.01, ge=0, description="KL divergence of the encoders' distributions from N(0, 1).")

    # Path R of real images.
    background_pixels: float = Field(1.0, ge=0, description="The background again where there is no object: L1.")
    background_features: float = Field(1.0, ge=0, description="The same as D_bg sees it: L1 of features.")
    again_adversarial: float = Field(1.0, ge=0, description="Images made again are real to D_c.")
    again_background: float = Field(
        10.0, ge=0, description="Backgrounds made again are real to D_bg: keeps the object out of them."
    )
    again_mask: float = Field(1.0, ge=0, description="L_RM of the masks of real images.")


class OneGanRecipe(Recipe):
    """A OneGAN training run."""

    system: ClassVar[str] = "onegan"
    remedy: ClassVar[str] = (
        "lower the learning rates (--set lr_generator=1e-4 --set lr_critic=1e-4) or compute in full precision "
        "(--set precision=fp32)"
    )

    data: str = Field("emoji", description="Data set name or folder, unless --data names another.")
    model: OneGanConfig = Field(default_factory=OneGanConfig, description="The networks.")
    weights: OneGanWeights = Field(default_factory=OneGanWeights, description="Of the terms.")
    mask_share: float = Field(
        0.5, gt=0, lt=1, description="Share of a picture that L_RM wants masks to cover; published half."
    )
    phases: tuple[float, float] = Field(
        (0.2, 0.4),
        description="Shares of the run after which path R of made images, and then of real ones, join path G.",
    )
    judged: Literal["made", "all"] = Field(
        "all", description="What discriminators learn to tell from real ones: images of path G, or of path R as well."
    )
    hard_from: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of the run after which every other step takes the codes that D_c recognises worst.",
    )
    hard_choice: int = Field(10, ge=2, le=1000, description="How many codes are drawn for each one that is taken then.")
    lr_generator: Rate = Field(2e-4, description="Adam's learning rate for generators, encoders and tables.")
    lr_critic: Rate = Field(2e-4, description="Adam's learning rate for both discriminators.")
    betas: Betas = Field((0.5, 0.999), description="Adam's moments.")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        second, third = self.phases
        if not 0 <= second <= third <= 1:
            raise ValueError(
                f"phases must be two shares of the run in their order, so {second:g} and {third:g} are none; "
                "the default is 0.2 and 0.4"
            )
        return self

    def start(self, device: torch.device, seed: int) -> "OneGanTraining":
        """Make the networks, optimisers and random state of a run before its first step."""
        from .training import OneGanTraining  # it imports this file

        return OneGanTraining(self, device, seed)

    def open_data(self, seed: int) -> Scenes:
        """Open objects on backgrounds, at the model's resolution."""
        return open_scenes(self.data, self.model.size, seed=seed)

    def items(self, data: Scenes, seed: int) -> SceneItems:
        """Return images of scenes, and backgrounds."""
        return SceneItems(data, seed)
