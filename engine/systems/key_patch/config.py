"""The configuration of a key-patch network: what fixes its shapes and arithmetic."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["Config", "KeyPatchConfig"]

_STEPS = {64: 4, 128: 5, 256: 6}  # layers that halve the side, down to 4


class KeyPatchConfig(BaseModel):
    """Everything that fixes the shapes and the arithmetic of a key-patch network; the defaults are the paper's table.

    Its supplementary and its second author's code differ in kernel, encoder width and z; the defaults follow the table.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    resolution: Literal[64, 128, 256] = Field(256, description="Side of images and stretched patches in pixels.")
    width: int = Field(64, ge=4, le=256, description="Channels of the first map; level i has width 2^min(3, i).")
    encoding: int = Field(256, ge=8, le=4096, description="Length of a patch's encoding; 128 in the code.")
    kernel: Literal[4, 5] = Field(4, description="Side of kernels of stride 2: 4 in the table, 5 in the code.")
    z_dim: int = Field(
        0, ge=0, le=4096, description="Random numbers beside the encoding, for the image decoder; 128 in arXiv v2."
    )
    wiring: Literal["mask", "encoder", "encoding"] = Field(
        "mask",
        description="What the image decoder sees at every scale beside its own map: the joined map of the mask "
        "decoder, as published; the encoder's map and no mask decoder; or nothing beside the encoding.",
    )
    patches: int = Field(3, ge=1, le=64, description="Patches of an image in training, and most in an exported graph.")
    least_side: float = Field(0.25, gt=0, lt=1, description="Least side of a key patch, as a share of the image's.")
    most_side: float = Field(0.40, gt=0, le=1, description="Greatest side of a key patch, likewise.")
    most_area: float = Field(
        0.16, gt=0, le=1, description="Greatest area of a key patch; 0.09 and 0.04 for small ones."
    )
    most_aspect: float = Field(1.6, ge=1, le=16, description="Longer over shorter side of a key patch at most.")
    most_overlap: float = Field(0.5, gt=0, le=1, description="Intersection over union of two key patches at most.")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.least_side >= self.most_side:
            raise ValueError(f"least_side must be below most_side, so {self.least_side} and {self.most_side} do not go")
        if self.least_side**2 > self.most_area:
            raise ValueError(
                f"a patch of least_side {self.least_side} covers more than most_area {self.most_area}; lower least_side"
            )
        return self

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of an image in pixels."""
        return self.resolution, self.resolution

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the encoder's maps, from the first to the one of 4 x 4."""
        return tuple(self.width * 2 ** min(3, level) for level in range(_STEPS[self.resolution]))

    @property
    def has_mask(self) -> bool:
        """Whether there is a mask decoder."""
        return self.wiring == "mask"


Config = KeyPatchConfig  # the name that every system's configuration goes by
