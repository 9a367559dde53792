"""A run of the semantic mapper, for a rearranger that stays as it was trained."""

from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field

from zellige.errors import TrainingError

from ....engine.checkpoint.file import Header, read_header, validated
from ....engine.library import find
from ....engine.systems.rearranger.config import MapperConfig, RearrangerConfig
from .recipe import JudgedRecipe

if TYPE_CHECKING:
    from .mapper_training import MapperTraining

__all__ = ["MapperRecipe"]


class MapperRecipe(JudgedRecipe):
    """A run of the mapper, stage 2. The defaults are the paper's where it gives any."""

    data: str = Field("emoji-faces", description="Real images for the discriminator of the second phase.")
    base: str = Field("rearranger", description="The rearranger: a bundled one's name, or the path of a checkpoint.")
    model: MapperConfig = Field(default_factory=MapperConfig, description="The mapper, its classes and their colours.")
    labelled: tuple[str, ...] = Field(
        (), description="Painted images of the classes, such as seed:7=mask.png; one is enough. For maps of classes."
    )
    segmenter_steps: int = Field(100, ge=1, le=100_000, description="Steps in which the segmenter learns them.")
    plain_until: float = Field(0.909, ge=0, le=1, description="Share of the run without L_adv; 100 of 110.")
    reconstruction: float = Field(10.0, gt=0, description="Weight of L_recon in the first phase.")
    reconstruction_late: float = Field(100.0, gt=0, description="Weight of L_recon beside L_adv.")
    adversarial: float = Field(1.0, ge=0, description="Weight of L_adv.")

    @cached_property
    def base_header(self) -> Header:
        """The header of the rearranger's checkpoint.

        Raises:
            TrainingError: it is no rearranger.
        """
        header = read_header(find(self.base))
        if header.system != "rearranger":
            raise TrainingError(f"{self.base} holds a {header.system} model; a mapper needs a rearranger as its base")
        return header

    @cached_property
    def config(self) -> RearrangerConfig:
        """The rearranger's configuration with this mapper."""
        settings: dict[str, Any] = validated(self.base_header, RearrangerConfig).model_dump()
        return RearrangerConfig.model_validate(settings | {"mapper": self.model.model_dump()})

    def start(self, device: torch.device, seed: int) -> "MapperTraining":
        """The networks, optimisers and random state of a run before its first step."""
        from .mapper_training import MapperTraining  # that file imports this one

        return MapperTraining(self, device, seed)
