"""OneGAN's configurations: birds, dogs and cars at the paper's sizes, and emoji on terrain.

The paper gives neither batch nor length. Both are FineGAN's: 16 images, 600 epochs, then 1,500 steps with hard codes.
The data sets are not bundled: give `--data` a folder that holds `objects`, images cropped around their boxes, and
`backgrounds`, patches outside of the boxes.
"""

from ....engine.systems.onegan.config import OneGanConfig
from .recipe import OneGanRecipe, OneGanWeights

__all__ = ["RECIPES"]

_HARD_STEPS = 1_500


def _published(images: int, children: int, parents: int, what: str) -> OneGanRecipe:
    steps = 600 * -(-images // 16) + _HARD_STEPS
    return OneGanRecipe(
        description=what, data=f"{what}/", model=OneGanConfig(children=children, parents=parents),
        batch=16, steps=steps, hard_from=1 - _HARD_STEPS / steps, checkpoint_every=2_000, sample_every=5_000,
    )  # fmt: skip


# The numbers of classes are FineGAN's: a child for each of the data set's species, breeds or models.
CUB = _published(11_788, 200, 20, "birds")
DOGS = _published(20_580, 120, 12, "dogs")
CARS = _published(16_185, 196, 20, "cars")

# Emoji cover 30 % of a picture on average, and 6 to 62 % of a single one.
# The run takes 12,000 seconds on a CPU that multiplies in bfloat16: 1, 2 and 3 a step in the three phases.
EMOJI = OneGanRecipe(
    description="Emoji on the ground of an unknown planet, with masks and two levels of classes",
    model=OneGanConfig(
        resolution=64, children=35, parents=7, latent=32, width=4, encoder_width=16, critic_width=24,
    ),
    weights=OneGanWeights(again_mask=0.3), mask_share=0.3,
    data="emoji", batch=16, steps=5_000, precision="bf16", storage="fp16",
)  # fmt: skip

RECIPES: dict[str, OneGanRecipe] = {
    "emoji": EMOJI,
    "onegan-cub": CUB,
    "onegan-dogs": DOGS,
    "onegan-cars": CARS,
}
