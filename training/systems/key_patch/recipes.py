"""Key patches' configurations: faces of emoji, the published ones, and the baselines of the supplementary."""

import math

from ....engine.systems.key_patch.config import KeyPatchConfig
from .recipe import KeyPatchRecipe

__all__ = ["RECIPES"]


def _steps(images: int, batch: int) -> int:
    """Steps of 25 epochs."""
    return 25 * math.ceil(images / batch)


# A model in the box must be small: half of the table's channels, and the code's length of an encoding.
_SMALL = KeyPatchConfig(resolution=64, width=32, encoding=128)
# The 2,905 emoji are few: D knows them by heart, and patches of three boxes each are learnt by heart too. Hence twelve
# candidates whose borders move, some random patches, noise on them, turned hues, and a D that learns slowly and sees
# images that change at random. At the published weights, by image, the gradient of L_G on the image decoder was 10
# times that of L_A after 250 steps, and masks stayed black; at 2 they come first. Grounds are clean with a little of
# the L1 norm of the whole image; without it D's share of the gradient left coloured noise around the patches.
KEYS = KeyPatchRecipe(
    description="Emoji, from patches of them", model=_SMALL, data="emoji-all", batch=16,
    steps=20_000, candidates=12, replacement=True, jitter=0.1, random_share=0.2, patch_noise=0.05, hue=60.0,
    ratio="1:1", lr_critic=4e-5, decay_from=0.6, augment=("colour", "translation", "cutout"), instance_noise=0.3,
    spatial=(2.0, 0.2), appearance=(2.0, 0.1), reconstruction=0.1, precision="bf16", storage="fp16",
    checkpoint_every=250, sample_every=250,
)  # fmt: skip


def _published(resolution: int, images: int, what: str, *, batch: int = 64, **model: float) -> KeyPatchRecipe:
    return KeyPatchRecipe(
        description=what, data=f"{what}/", model=KeyPatchConfig(resolution=resolution, **model), batch=batch,
        steps=_steps(images, batch), checkpoint_every=2_000, sample_every=2_000,
    )  # fmt: skip


FACES = _published(128, 202_599, "faces")
# Boxes of the shipped file: up to a quarter of the image, and half of its side.
CARS = _published(128, 136_687, "cars", batch=32, most_side=0.5, least_side=0.2, most_area=0.25, most_aspect=2.5)
FACES_256 = _published(256, 30_000, "faces-256")

_NONE = (0.0, 0.0)
_ADVERSARIAL = FACES.model_copy(update={"spatial": _NONE, "appearance": _NONE})

RECIPES: dict[str, KeyPatchRecipe] = {
    "keys": KEYS,
    "key-patch-celeba": FACES,
    "key-patch-compcars": CARS,
    "key-patch-celeba-hq": FACES_256,
    "key-patch-plain": FACES.model_copy(update={"objective": "plain"}),
    "key-patch-baseline-1": _ADVERSARIAL.model_copy(
        update={"model": FACES.model.model_copy(update={"wiring": "encoder"})}
    ),
    "key-patch-baseline-2": _ADVERSARIAL.model_copy(
        update={"model": FACES.model.model_copy(update={"wiring": "encoder", "z_dim": 128})}
    ),
    "key-patch-baseline-3": _ADVERSARIAL.model_copy(
        update={
            "model": FACES.model.model_copy(update={"wiring": "encoding"}),
            "objective": "none",
            "reconstruction": 1.0,
        }
    ),
}
