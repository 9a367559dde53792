"""The configuration of a rearranger: its generator, its proxy masks, its networks."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..stylegan2.config import StyleGan2Config

__all__ = ["Config", "MapperConfig", "RearrangerConfig"]


class MapperConfig(BaseModel):
    """What turns a user's condition into a proxy mask."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["labels", "edges"] = Field(
        "labels",
        description="labels: maps of classes, read by OASIS's blocks; edges: white lines on black, by a U-Net.",
    )
    names: tuple[str, ...] = Field(
        ("background", "object"), min_length=1, max_length=256, description="Names of the classes, in order."
    )
    palette: tuple[tuple[int, int, int], ...] = Field(
        ((255, 255, 255), (0, 0, 0)), description="The colour of each class in painted masks."
    )
    channels: tuple[int, ...] = Field(
        (1024, 1024, 1024, 512, 256), min_length=2, max_length=9,
        description="Channels from the smallest map on, doubling in side up to the mask's.",
    )  # fmt: skip
    hidden: int = Field(128, ge=1, le=1024, description="Channels between labels and the factors of a SPADE norm.")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if len(self.palette) != len(self.names) or len(set(self.palette)) < len(self.palette):
            raise ValueError(f"{len(self.names)} classes need as many different colours; there are {len(self.palette)}")
        if any(not 0 <= level <= 255 for colour in self.palette for level in colour):
            raise ValueError("a colour of the palette is not of 0 to 255")
        if any(not 1 <= width <= 4096 for width in self.channels):
            raise ValueError(f"channels are 1 to 4096, not {self.channels}")
        return self


class RearrangerConfig(BaseModel):
    """Everything that fixes the shapes and the arithmetic of a rearranger; the paper leaves many of these open."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generator: StyleGan2Config = Field(
        default_factory=StyleGan2Config, description="The generator, which stays as it was trained."
    )
    split: int = Field(64, ge=4, le=1024, description="Side of the features that are rearranged; 64 in the paper.")
    tensor: Literal["conv", "up"] = Field(
        "conv", description="Which convolution of that side gives the features: the second (conv) or the first (up)."
    )
    clusters: int = Field(25, ge=2, le=256, description="Labels of proxy masks.")
    metric: Literal["cosine", "euclidean"] = Field("cosine", description="How features are compared with centroids.")
    reading: Literal["A", "B", "C"] = Field(
        "A",
        description="Residual blocks: A, one on the mask's stream and one after attention; B, one more on the "
        "features' stream; C, two on the mask's stream and two after attention.",
    )
    depth: int = Field(4, ge=1, le=16, description="3x3 convolutions of a residual block.")
    width: int = Field(512, ge=4, le=512, description="Channels of the mask's stream and of values.")
    key_width: int = Field(512, ge=1, le=520, description="Length of queries and keys; 64 takes a third less time.")
    key_positions: bool = Field(False, description="Whether features get positions too before they become keys.")
    rgb: Literal["pass", "drop", "rearrange"] = Field(
        "rearrange",
        description="What becomes of the image that the first half has summed up: passed on as it lies, left out, or "
        "moved by the same attention.",
    )
    mapper: MapperConfig | None = Field(None, description="The semantic mapper; none if masks come from latents alone.")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        sides = self.generator.sides
        if self.split not in sides:
            raise ValueError(
                f"a generator of {self.generator.resolution} pixels has no features of {self.split} pixels"
            )
        if self.split == 4:
            raise ValueError("features of 4 pixels come before the first image; split at 8 or more")
        if self.width % 4:
            raise ValueError(f"width must be a multiple of 4, for sines and cosines along two axes, not {self.width}")
        if self.key_positions and self.features % 4:
            raise ValueError(f"positions of keys need features of a multiple of 4 channels, not {self.features}")
        if self.mapper is not None and self.split % 2 ** (len(self.mapper.channels) - 1):
            raise ValueError(f"{len(self.mapper.channels)} maps of a mapper do not double up to {self.split} pixels")
        return self

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of an image in pixels."""
        return self.generator.size

    @property
    def features(self) -> int:
        """Channels of the features."""
        return self.generator.channels[self.generator.sides.index(self.split)]


Config = RearrangerConfig  # the name that every system's configuration goes by
