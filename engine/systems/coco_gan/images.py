"""Generates whole images of a COCO-GAN with any runtime."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from ...device import precision_of
from ...panorama.latents import fixed_latents
from ...rewrite.plan import Choice
from ...runtimes import As, Runtime, checked_as, converted, joined
from .config import CocoGanConfig

__all__ = ["CocoGanImages"]


class CocoGanImages:
    """A model that generates whole images; `zellige.load` makes it from an exported file of the task `generate`.

    Args:
        config: the model's configuration.
        name: the model's name in reports and errors.
        device: the device that it runs on.
        dtype: the dtype of its convolutions.
        runtime: the runtime, which takes latents and gives images.
    """

    system = "coco-gan"
    batch = 16

    def __init__(
        self, config: CocoGanConfig, name: str, device: torch.device, dtype: torch.dtype, runtime: Runtime
    ) -> None:
        self.config, self.name, self.device, self.dtype, self._runtime = config, name, device, dtype, runtime
        self.choices: list[Choice] = []

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of an image in pixels."""
        return self.config.size

    @property
    def precision(self) -> str:
        """fp32, bf16 or fp16."""
        return precision_of(self.dtype)

    def generate(self, count: int, seed: int = 0, *, first: int = 0, as_: As = "numpy") -> Any:
        """Images under a seed; see `PatchPictures.generate`."""
        as_ = checked_as(as_, self.device)
        latents = fixed_latents(seed, count, self.config.latent, first).astype(np.float32)
        rows = self._runtime.run((latents,), host=as_ == "numpy")
        return converted(joined(rows, count, lent=self._runtime.lends), as_, self.name)

    def warm(self, counts: Iterable[int]) -> None:
        """Do now the extra work of the first calls of `generate` for these numbers of images."""
        self._runtime.warm(counts, (np.zeros((1, self.config.latent), np.float32),))
