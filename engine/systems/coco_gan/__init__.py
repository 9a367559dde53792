"""COCO-GAN: images and panoramas of any size, made of micro patches. Lin et al., ICCV 2019."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from ..system import Options, System, Task


class Panorama(Options):
    """What lies where in a panorama, and how it is laid."""

    map: Path | None = Field(None, description="A small picture whose colours say what lies where; it is stretched.")
    legend: Path | None = Field(None, description="A TOML file with the latent of each colour of --map.")
    soften: float | None = Field(
        None, ge=0, description="Width in pixels over which regions of --map blend; 2 micro patches if left out."
    )
    vary: float | None = Field(
        None, ge=0, le=1, description="How far --seed changes the regions of --map along the way; 0.3 if left out."
    )
    blend: Literal["half-step"] | None = Field(
        None, description="Lay blended half steps even if the latent can move inside of the network, to compare."
    )


SYSTEM = System(
    name="coco-gan",
    title="COCO-GAN",
    tasks=(
        Task("generate", "Images under a seed."),
        Task("panorama", "A panorama of any size within a memory budget.", options=Panorama),
    ),
    graphs=("generate", "patches", "strip"),
    measured="patches",
    references={
        "coco-gan-256": {"patch": 64},
        "coco-gan-256-dense": {"patch": 64, "dense": True, "padding": "none"},
    },
)
