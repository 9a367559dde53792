"""The configuration of a COCO-GAN, which fixes its shapes and its arithmetic."""

import math
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ...layers.convolutions import Padding
from ...panorama.lattice import Lattice, Topology
from ...panorama.scene import Inside

__all__ = ["CocoGanConfig", "Config"]


_STRIP, _STRIP_PATCHES, _STRIP_PIXELS = 8, 128, 2**18


class CocoGanConfig(BaseModel):
    """Everything that fixes the shapes and the arithmetic of a COCO-GAN; defaults are the paper's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    topology: Topology = Field("plane", description="Which axes are cyclic: none, the horizontal one, both.")
    rows: int = Field(4, ge=1, le=4096, description="Micro patches along the height of the image.")
    columns: int = Field(4, ge=1, le=4096, description="Micro patches along the width of the image.")
    span: int = Field(2, ge=2, le=64, description="Micro patches along each side of a macro patch.")
    dense: bool = Field(
        False,
        description="Tell G the place of every cell of its maps instead of one coordinate for a patch, and give the "
        "maps a margin instead of padding, so that patches continue each other exactly. Not published.",
    )
    patch: int = Field(32, description="Side of a micro patch in pixels: 4, 8, ..., 256.")
    latent: int = Field(128, ge=1, le=4096, description="Length of the latent vector, uniform on [-1, 1].")
    channels: int = Field(3, ge=1, le=4, description="Image channels.")
    width: int = Field(64, ge=1, le=512, description="Base width of the generator (ngf).")
    critic_width: int = Field(64, ge=1, le=512, description="Base width of the discriminator (ndf).")
    head_width: int = Field(128, ge=1, le=4096, description="Hidden width of the coordinate and the latent head.")
    extra_blocks: int = Field(0, ge=0, le=8, description="Generator blocks at full patch size, after the others.")
    padding: Padding = Field(
        "zeros",
        description="Padding of the generator's convolutions; zeros darken patch borders, replicate does not; "
        "none goes only with dense places.",
    )
    condition_std: float | None = Field(
        None, gt=0, description="Initial std of the conditional norm's weights; none means Glorot-uniform as published."
    )
    condition_scale: float = Field(0.0, description="Initial bias of the conditional norm's scale; 0 as published.")
    latent_head: bool = Field(False, description="Whether the latent head Q exists, for patch-guided generation.")
    reference_quirks: bool = Field(
        False,
        description="Follow the reference code where it differs from the paper: the conditional norm divides by "
        "sqrt(var^2 + eps), and the gradient penalty ignores coordinates and takes its norm over the height only.",
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.patch not in (4, 8, 16, 32, 64, 128, 256):
            raise ValueError(f"patch must be a power of two from 4 to 256, not {self.patch}")
        if self.macro > 1024:
            raise ValueError(f"a macro patch of span {self.span} x {self.patch} pixels exceeds 1024 pixels")
        if self.dense != (self.padding == "none"):
            raise ValueError(
                f"dense={self.dense} does not go with padding={self.padding!r}: dense places, and they alone, take "
                "padding='none'"
            )
        halvings = 2 ** (len(self.critic_multipliers) - 1)
        if self.macro % halvings:
            raise ValueError(
                f"the critic halves a macro patch to 1/{halvings}, so {self.macro} pixels must divide by that"
            )
        self.lattice  # noqa: B018  refuses impossible lattices with its own sentence
        return self

    @property
    def lattice(self) -> Lattice:
        """The lattice of one full image."""
        return Lattice(self.topology, self.rows, self.columns, self.span)

    @property
    def conditions(self) -> int:
        """Length of the condition of stem and norms: latent and micro coordinate, or the latent alone if `dense`."""
        return self.latent + (0 if self.dense else self.lattice.dimensions)

    @property
    def macro(self) -> int:
        """Side of a macro patch in pixels."""
        return self.patch * self.span

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the full image (of one turn along a cyclic axis) in pixels."""
        return self.rows * self.patch, self.columns * self.patch

    @property
    def still_block(self) -> tuple[int, int]:
        """Micro patches, down and across, that are made at once under one latent; with dense places up to 4 x 4.

        Margins cost multiplications: for `planet` a single patch takes 2.9 times as many for each patch as without a
        margin, a column of four 2.0 times, and a block of 4 x 4 1.4 times.
        """
        down, across = (min(axis.patches, 4) if self.dense else 1 for axis in self.lattice.axes)
        return down, across

    @property
    def strip_block(self) -> tuple[int, int]:
        """Micro patches, down and across, that are made at once while the latent moves inside of them.

        Up to 8 down, in equal parts, because what reaches beyond an open axis is lost, and up to 128 or 2^18 pixels in
        all, on a cyclic axis of more than one turn too.
        """
        down = -(-self.rows // -(-self.rows // _STRIP))
        across = max(min(_STRIP_PATCHES, _STRIP_PIXELS // self.patch**2) // down, 1)
        return down, across if self.lattice.axes[1].cyclic else min(self.columns, across)

    @property
    def inside(self) -> Inside:
        """How a generator with dense places takes latents that move inside of a block: for two cells a patch."""
        margin = 1  # of the image's convolution; then from the last block back to the stem
        for _, up in reversed(self.generator_blocks):
            margin = (margin + 2 + up) // (1 + up)
        return Inside(2, margin + 1)

    @property
    def strip_cells(self) -> tuple[int, int]:
        """Rows and columns of latents in the graph `strip`."""
        down, across = (
            self.inside.count(n) if moves else 1 for n, moves in zip(self.strip_block, self.strip_moves, strict=True)
        )
        return down, across

    @property
    def strip_moves(self) -> tuple[bool, bool]:
        """Axes along which the latent may move in the graph `strip`: those that are cyclic, and the horizontal one."""
        return self.lattice.axes[0].cyclic, True

    @property
    def generator_blocks(self) -> list[tuple[int, bool]]:
        """The channels of every generator block, in order, and whether it up-samples."""
        ups = int(math.log2(self.patch)) - 1
        multipliers = [8, 4, 2] + [1] * (ups + self.extra_blocks)
        return [(multipliers[i] * self.width, i < ups) for i in range(ups + self.extra_blocks)]

    @property
    def critic_multipliers(self) -> list[int]:
        """Widths of the discriminator's blocks in multiples of `critic_width`."""
        blocks = int(math.log2(self.macro)) - 1
        if blocks <= 4:
            return [1, 4, 8, 8][4 - blocks :]
        return [1] * (blocks - 5) + [1, 2, 4, 8, 8]


Config = CocoGanConfig  # the name that is common to all systems' configurations
