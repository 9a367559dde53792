"""StyleGAN2: images without labels. Karras et al., CVPR 2020."""

from typing import Literal

from pydantic import Field

from ..system import Options, System, Task


class Look(Options):
    """How far images may be from the mean, which noise they get, and whose styles their layers take."""

    psi: float = Field(1.0, ge=-4, le=4, description="Truncation: 1 is as trained, 0 the mean image.")
    cutoff: int | None = Field(
        None, ge=0, le=64, description="Layers, from the first, that psi truncates; all if left out."
    )
    noise: Literal["stored", "shared", "random"] = Field(
        "stored", description="Noise of the layers: the model's own, one of the seed for all images, or one an image."
    )
    mix: int | None = Field(None, ge=0, description="Seed of second latents, whose styles the later layers take.")
    mix_from: int = Field(4, ge=1, le=64, description="First layer that takes the second styles.")


SYSTEM = System(
    name="stylegan2",
    title="StyleGAN2",
    tasks=(Task("generate", "Images without labels.", options=Look),),
    graphs=("generate", "synthesise"),
    measured="generate",
    references={
        "stylegan2-256": {},
        "stylegan2-64": {"channels": (256, 256, 256, 128, 64)},
        "stylegan2-1024": {"channels": (512, 512, 512, 512, 512, 256, 128, 64, 32)},
    },
)
