"""What a run of key patches is: networks, patches, objective, schedule."""

from typing import TYPE_CHECKING, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator

from ....engine.systems.key_patch.config import KeyPatchConfig
from ...augment import Augmentation
from ...data.sources import Pictures, open_pictures
from ...recipe import Betas, Rate, Recipe
from .items import KeyPatchItems, Selection
from .losses import L1

if TYPE_CHECKING:
    from .training import KeyPatchTraining

__all__ = ["KeyPatchRecipe"]

Weight = float


class KeyPatchRecipe(Recipe):
    """A run of key patches. The defaults are those of the second author's code, which the paper does not contradict."""

    system: ClassVar[str] = "key-patch"
    remedy: ClassVar[str] = (
        "lower the learning rate (--set lr=1e-4) or compute in full precision (--set precision=fp32)"
    )

    data: str = Field("emoji-faces", description="Data set name or folder, unless --data names another.")
    model: KeyPatchConfig = Field(default_factory=KeyPatchConfig, description="The networks.")
    batch: int = Field(64, ge=2, le=65_536, description="Images a step; 64, or 32 for cars.")
    selection: Selection = Field(
        "edges",
        description="What patches are: key patches by our own score (edges) or OpenCV's (edgeboxes), or random ones.",
    )
    candidates: int = Field(3, ge=1, le=64, description="Key patches of an image that its own are drawn from.")
    replacement: bool = Field(
        False, description="Draw with replacement, so that one network learns any number of patches up to its own."
    )
    jitter: float = Field(
        0.0, ge=0, le=0.5, description="Share of a box's sides by which its borders move at most; more variety. Ours."
    )
    random_share: float = Field(
        0.0, ge=0, le=1, description="Share of the images whose patches lie at random places, whatever the selection."
    )
    patch_noise: float = Field(0.0, ge=0, le=1, description="Deviation of noise on the patches, -1 to 1. Ours.")
    hue: float = Field(
        0.0, ge=0, le=180, description="Degrees by which the colours of an image are turned at most; more variety."
    )
    objective: Literal["composites", "plain", "none"] = Field(
        "composites",
        description="What D learns: composites, equation 4, also that patches of one image in another are fake; plain, "
        "equation 1, made images alone; none, nothing, and no image is judged.",
    )
    early_composites: bool = Field(
        False, description="D also learns made patches in real images, and the reverse, as fake: code of Dec 2017."
    )
    instance_noise: float = Field(
        0.0, ge=0, le=2, description="Deviation of noise on all that D sees; falls to 0 over the run. Ours."
    )
    augment: tuple[Augmentation, ...] = Field(
        (), description="Random changes of all that D sees: colour, translation, cutout; for few images. Ours."
    )
    spatial: tuple[Weight, Weight] = Field((1e-2, 1e-4), description="Weight of L_S in the first and last epoch.")
    appearance: tuple[Weight, Weight] = Field((1e-2, 1e-4), description="Weight of L_A in the first and last epoch.")
    reconstruction: Weight = Field(0.0, ge=0, description="Weight of the L1 norm of the whole image; baseline 3.")
    l1: L1 = Field(
        "image",
        description="What an L1 norm is: image, the sum over an image and the mean over the batch; batch, the sum over "
        "both, as in the code; pixel or element, the mean over pixels, or over their channels too.",
    )
    epochs: int = Field(25, ge=1, le=10_000, description="Equal parts of the run in each of which the weights stay.")
    ratio: Literal["2:1", "1:1", "1:2"] = Field(
        "2:1", description="Updates of D to those of the generator: 2:1 in the final code, 1:2 in that of March 2018."
    )
    lr: Rate = Field(2e-4, description="Adam's learning rate for encoder and decoders.")
    lr_critic: Rate = Field(2e-4, description="Adam's learning rate for D; lower where it knows few images by heart.")
    betas: Betas = Field((0.5, 0.999), description="Adam's moments.")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.model.has_mask and (any(self.spatial) or any(self.appearance)):
            raise ValueError("without a mask decoder there is no L_S and no L_A; set spatial and appearance to [0,0]")
        if self.objective == "none" and not self.reconstruction and not any(self.appearance):
            raise ValueError("nothing is left to learn images from; set objective, appearance or reconstruction")
        if self.candidates < self.model.patches and not self.replacement:
            raise ValueError(
                f"{self.model.patches} patches cannot be drawn from {self.candidates} candidates without replacement; "
                "raise candidates, or set replacement"
            )
        return self

    def start(self, device: torch.device, seed: int) -> "KeyPatchTraining":
        """The networks, optimisers and random state of a run before its first step."""
        from .training import KeyPatchTraining  # that file imports this one

        return KeyPatchTraining(self, device, seed)

    def open_data(self, seed: int) -> Pictures:
        """Pictures of the model's resolution."""
        return open_pictures(self.data, self.model.size, "plane", seed=seed)

    def items(self, data: Pictures, seed: int) -> KeyPatchItems:
        """Images with their patches, and other images."""
        return KeyPatchItems(data, self, seed)
