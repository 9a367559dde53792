"""The configuration of a OneGAN: its shapes, its arithmetic, and every choice that the paper leaves open."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["Config", "OneGanConfig"]


class OneGanConfig(BaseModel):
    """Everything that fixes the shapes and the arithmetic of a OneGAN.

    Default sizes are the paper's. If its tables are silent or contradict each other, the default follows the tables'
    arithmetic and their ancestor, FineGAN; other readings are other values of the same field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    resolution: int = Field(
        128,
        description="Side of an image in pixels: 128 as published, or 64, which leaves out the outermost step of every "
        "network; maps of the same side have the same channels in both.",
    )
    children: int = Field(200, ge=2, le=65536, description="Child classes (style), N_C.")
    parents: int = Field(20, ge=1, le=65536, description="Parent classes (shape), N_P, fewer than children.")
    latent: int = Field(100, ge=1, le=4096, description="Length of the pose code z, normally distributed.")
    child_vector: int = Field(32, ge=1, le=4096, description="Length of a style vector v_c.")
    parent_vector: int = Field(16, ge=1, le=4096, description="Length of a shape vector v_p.")
    background_vector: int = Field(32, ge=1, le=4096, description="Length of a background vector v_bg.")
    width: int = Field(
        16, ge=1, le=128, description="Channels of the foreground's last map; the generators' others are multiples."
    )
    encoder_width: int = Field(64, ge=1, le=512, description="Channels of the encoders' first map at 128 pixels.")
    critic_width: int = Field(64, ge=1, le=512, description="Channels of the discriminators' first map at 128 pixels.")
    norm_axes: Literal["sample", "pixel"] = Field(
        "sample",
        description="Axes of the statistics of a map's layer norm: channels and space of a sample, or the "
        "channels of each pixel. Not published.",
    )
    norm_affine: Literal["channel", "element"] = Field(
        "channel",
        description="One scale and shift for each channel, or for each element of a map, which takes 27 M more "
        "parameters at full size. Not published.",
    )
    norm_eps: float = Field(1e-5, gt=0, le=0.1, description="Added to the variance in every layer norm.")
    bias_before_norm: bool = Field(
        False, description="Whether layers before a layer norm have a bias. Not published; FineGAN's have none."
    )
    table_bias: bool = Field(
        False,
        description="Whether the embedding tables have a bias. Without it the vectors are the embeddings, whose norm "
        "the paper regularises.",
    )
    upsampling: Literal["nearest", "bilinear"] = Field(
        "nearest", description="Interpolation of an up block when it doubles the side. Not published; FineGAN: nearest."
    )
    bypass: Literal["flat", "bottleneck"] = Field(
        "flat",
        description="How a bypass keeps the side of 16, which the printed one would double: flat, its second block "
        "does not up-sample; bottleneck, its first block halves to 8, which makes pixels harder to copy.",
    )
    background_input: Literal["raw", "masked"] = Field(
        "raw",
        description="The background encoder's input beside the mask: the whole image, as printed, or the image "
        "with its object blanked.",
    )
    sigma: Literal["log_variance", "softplus"] = Field(
        "log_variance",
        description="Meaning of the sigma heads: the logarithm of the variance, or a deviation through "
        "softplus. Not published.",
    )
    tie_parents: bool = Field(
        True,
        description="Whether training draws parents tied to children, floor(child * parents / children) as FineGAN "
        "does, or independently. Generation takes any pair.",
    )
    background_classes: Literal["parent", "child"] = Field(
        "parent", description="Class of the background: the parent's, as printed, or the child's, as in FineGAN."
    )
    reconstruction_codes: Literal["vectors", "classes"] = Field(
        "vectors",
        description="Source of style and shape in reconstruction: the encoders' mu and sigma heads, or their class "
        "probabilities through the embedding tables. Not published.",
    )
    mix: Literal["shared", "separate"] = Field(
        "shared",
        description="Whether training mixes a sample's foreground and background with one factor, uniform on [0, 1], "
        "or with one for each. Not published.",
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.resolution not in (64, 128):
            raise ValueError(f"resolution must be 64 or 128, not {self.resolution}")
        if self.parents >= self.children:
            raise ValueError(
                f"parents must be fewer than children, so {self.parents} do not go with {self.children}; parents are "
                "shapes, and children their styles"
            )
        if self.norm_axes == "pixel" and self.norm_affine == "element":
            raise ValueError("norm_affine='element' does not go with norm_axes='pixel'; take 'channel' or 'sample'")
        return self

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of an image in pixels."""
        return self.resolution, self.resolution

    @property
    def backgrounds(self) -> int:
        """Number of background classes."""
        return self.parents if self.background_classes == "parent" else self.children

    @property
    def full(self) -> bool:
        """Whether the networks have their outermost step, at 128 pixels."""
        return self.resolution == 128


Config = OneGanConfig  # the name that is common to all systems' configurations
