"""StyleGAN2's configurations: emoji, and the published ones."""

from ....engine.systems.stylegan2.config import StyleGan2Config
from .recipe import StyleGan2Recipe

__all__ = ["RECIPES"]

_HALF, _FULL = (512, 512, 512, 512, 256, 128, 64, 32, 16), (512, 512, 512, 512, 512, 256, 128, 64, 32)

# A model in the box must be small: a quarter of the half width's channels, vectors of 256. Its images are few, so D
# sees them changed at random.
FACES = StyleGan2Recipe(
    description="Faces and people, as emoji", data="emoji-faces", batch=16, steps=40_000,
    model=StyleGan2Config(channels=(128, 128, 128, 96, 64), z_dim=256, w_dim=256, mapping_layers=4),
    augment=("colour", "translation", "cutout"), r1=0.5, path_every=8, ema=0.999, decay_from=0.7, precision="bf16",
    storage="fp16", checkpoint_every=250, sample_every=250,
)  # fmt: skip


def _published(resolution: int, channels: tuple[int, ...], what: str, **settings: float) -> StyleGan2Recipe:
    levels = resolution.bit_length() - 2
    return StyleGan2Recipe(
        description=what, data=f"{what}/", model=StyleGan2Config(channels=channels[:levels]), steps=781_250, ema=0.998,
        checkpoint_every=2_000, sample_every=2_000, **settings,
    )  # fmt: skip


RECIPES: dict[str, StyleGan2Recipe] = {
    "faces": FACES,
    "stylegan2-ffhq": _published(1024, _FULL, "ffhq"),
    "stylegan2-256": _published(256, _HALF, "images", r1=1.0),
}
