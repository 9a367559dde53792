"""The rearranger's configurations: for the bundled faces, and the published ones."""

from ....engine.systems.rearranger.config import MapperConfig, RearrangerConfig
from ....engine.systems.stylegan2.config import StyleGan2Config
from ...recipe import Recipe
from .mapper_recipe import MapperRecipe
from .recipe import RearrangerRecipe

__all__ = ["RECIPES"]

FACES = RearrangerRecipe(
    description="Faces and people in the layout of others", base="faces", data="emoji-faces", batch=8, steps=15_000,
    model=RearrangerConfig(
        generator=StyleGan2Config(channels=(128, 128, 128, 96, 64), z_dim=256, w_dim=256, mapping_layers=4),
        split=32, width=96, key_width=64,
    ),
    augment=("colour", "translation", "cutout"), r1=0.5, ema=0.999, decay_from=0.7, precision="bf16", storage="fp16",
    checkpoint_every=250, sample_every=250,
)  # fmt: skip

_SMALL = MapperConfig(channels=(128, 128, 96, 64), hidden=32)

RECIPES: dict[str, Recipe] = {
    "faces-rearranger": FACES,
    "faces-edges": MapperRecipe(
        description="Faces and people along drawn lines", base="rearranger", steps=6_000, precision="bf16",
        storage="fp16", model=_SMALL.model_copy(update={"kind": "edges"}), augment=FACES.augment, r1=0.5,
        checkpoint_every=250, sample_every=250,
    ),
    "faces-labels": MapperRecipe(
        description="Faces and people in painted layouts", base="rearranger", steps=6_000, precision="bf16",
        storage="fp16", model=_SMALL, augment=FACES.augment, r1=0.5, checkpoint_every=250, sample_every=250,
    ),
    "mapper-256": MapperRecipe(
        description="images in painted layouts", data="images/", base="rearranger-256.safetensors", steps=110_000,
        checkpoint_every=2_000, sample_every=2_000,
    ),
    "rearranger-256": RearrangerRecipe(
        description="images", data="images/", base="stylegan2-256.safetensors", steps=140_000, checkpoint_every=2_000,
        sample_every=2_000, model=RearrangerConfig(width=256, key_width=256),
    ),
}  # fmt: skip
