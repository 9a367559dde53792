"""COCO-GAN's published configurations, and ours.

The published configurations differ from the defaults (which are the paper's) in the fields named here. Their data sets
are not bundled: give `--data` a folder. `*-quirks` follows the reference code where it differs from the paper.
"""

from ....engine.systems.coco_gan.config import CocoGanConfig
from .recipe import CocoGanRecipe

__all__ = ["RECIPES"]

CELEBA_64 = CocoGanRecipe(model=CocoGanConfig(patch=16), batch=64)
CELEBA_128 = CocoGanRecipe(model=CocoGanConfig(patch=32))
CELEBA_128_GUIDED = CocoGanRecipe(model=CocoGanConfig(patch=32, latent_head=True), content=100)
CELEBA_128_N4 = CocoGanRecipe(model=CocoGanConfig(patch=16, rows=8, columns=8, span=4))
CELEBA_128_N8 = CocoGanRecipe(model=CocoGanConfig(patch=8, rows=16, columns=16, span=8, extra_blocks=1))
CELEBA_128_N16 = CocoGanRecipe(model=CocoGanConfig(patch=4, rows=32, columns=32, span=16, extra_blocks=3), batch=64)
CELEBA_HQ_1024 = CocoGanRecipe(model=CocoGanConfig(patch=256), batch=20)
LSUN_64 = CocoGanRecipe(model=CocoGanConfig(patch=16))
LSUN_256 = CocoGanRecipe(model=CocoGanConfig(patch=64))
LSUN_256_BEYOND = CocoGanRecipe(model=CocoGanConfig(patch=64), beyond=1, consistency=10_000)
MATTERPORT = CocoGanRecipe(model=CocoGanConfig(topology="cylinder", columns=12, patch=64))
CELEBA_64_QUIRKS = CocoGanRecipe(model=CocoGanConfig(patch=16, reference_quirks=True), batch=64)

# Ours leave the paper where great-circle strips and a short run on a CPU require it. Strips look alike all the way
# round and, because all great circles are equally likely, from top to bottom as well. So no coordinate can be read off
# a real patch, and there is no consistency loss. Hinge loss needs no gradient penalty. With 32 patches a turn,
# neighbours have nearly the same published coordinate: they would come out nearly alike, each framed by its borders.
# Dense places make them windows on one field. The diversity loss keeps seeds apart, and vanishes once they differ as
# much as real strips.
PLANET = CocoGanRecipe(
    description="Closed panoramas of an unknown planet: oceans, coasts, deserts, forests, ice",
    model=CocoGanConfig(
        topology="cylinder", rows=4, columns=32, dense=True, patch=32, width=32, critic_width=32,
        padding="none", condition_std=0.1, condition_scale=1.0,
    ),
    data="earth", sampling="continuous", loss="hinge", penalty=0, consistency=0,
    diversity=2, diversity_target=0.9,
    batch=24, steps=5_000, lr_generator=4e-4, lr_critic=2e-4, precision="bf16", storage="fp16",
)  # fmt: skip

# Planar crops do not wrap, so real macro patches stay inside the crop's borders. Only the generator is a torus.
TERRAIN = PLANET.model_copy(
    update={
        "description": "Endless relief: ground of an unknown planet that closes on itself both ways",
        "data": "earth-land",
        "steps": 4_000,
        "model": PLANET.model.model_copy(update={"topology": "torus", "rows": 8, "columns": 8, "width": 24}),
    }
)

RECIPES: dict[str, CocoGanRecipe] = {
    "planet": PLANET,
    "terrain": TERRAIN,
    "celeba-64": CELEBA_64,
    "celeba-64-quirks": CELEBA_64_QUIRKS,
    "celeba-128": CELEBA_128,
    "celeba-128-guided": CELEBA_128_GUIDED,
    "celeba-128-n4": CELEBA_128_N4,
    "celeba-128-n8": CELEBA_128_N8,
    "celeba-128-n16": CELEBA_128_N16,
    "celeba-hq-1024": CELEBA_HQ_1024,
    "lsun-64": LSUN_64,
    "lsun-256": LSUN_256,
    "lsun-256-beyond": LSUN_256_BEYOND,
    "matterport-256x768": MATTERPORT,
}
