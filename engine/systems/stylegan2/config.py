"""The configuration of a StyleGAN2: what fixes its shapes and arithmetic."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["Config", "StyleGan2Config"]

Width = Annotated[int, Field(ge=1, le=4096)]


class StyleGan2Config(BaseModel):
    """Everything that fixes the shapes and the arithmetic of a StyleGAN2; the default is the half width at 256 pixels.

    Full width doubles the channels from 64 pixels on: (512, 512, 512, 512, 512, 256, 128).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: tuple[Width, ...] = Field(
        (512, 512, 512, 512, 256, 128, 64),
        min_length=1,
        max_length=9,
        description="Channels of the blocks of 4, 8, 16, ... pixels a side; the last block is the image's.",
    )
    z_dim: int = Field(512, ge=1, le=4096, description="Length of a latent z.")
    w_dim: int = Field(512, ge=1, le=4096, description="Length of a style vector w.")
    mapping_layers: int = Field(8, ge=1, le=32, description="Layers of the mapping network; 2 in ADA's auto.")
    mapping_rate: float = Field(
        0.01, gt=0, le=1, allow_inf_nan=False, description="Multiplier of the mapping network's learning rate."
    )
    clamp: float | None = Field(
        None, gt=0, allow_inf_nan=False,
        description="Bound of every layer's values after its activation; 256 where training was in float16.",
    )  # fmt: skip
    raw_epsilon: bool = Field(
        True,
        description="Whether demodulation adds its epsilon to weights without their gain, as NVIDIA's PyTorch code "
        "does; rosinality, genforce and TensorFlow scale them first.",
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if max(self.channels) * max(self.z_dim, self.w_dim) > 2**24:
            raise ValueError("channels times the length of a vector are more than 16 million")
        return self

    @property
    def resolution(self) -> int:
        """Side of an image in pixels."""
        return 2 ** (len(self.channels) + 1)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of an image in pixels."""
        return self.resolution, self.resolution

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides of the blocks' maps, from 4 to the image's."""
        return tuple(4 * 2**level for level in range(len(self.channels)))

    @property
    def style_count(self) -> int:
        """Number of style vectors of an image: two for each block, because toRGB shares one with the next block."""
        return 2 * len(self.channels)

    @property
    def noise_sides(self) -> tuple[int, ...]:
        """Sides of the maps of noise, one for each 3x3 convolution in order."""
        return (4, *(side for side in self.sides[1:] for _ in range(2)))


Config = StyleGan2Config  # the name that every system's configuration goes by
