"""Generates a OneGAN's images by class (path G) with any runtime."""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from zellige.errors import TaskError

from ...device import precision_of
from ...layers.ambient import own_modes
from ...rewrite.plan import Choice
from ...runtimes import As, Runtime, checked_as, converted, joined
from .classes import Classes, chosen_classes, draw_latents, draw_pairs
from .config import OneGanConfig

__all__ = ["INPUTS", "OneGanImages"]

Indices = npt.NDArray[np.int64]
INPUTS = ("child", "parent", "latent", "background")  # the inputs of path G, in order


class OneGanImages:
    """A model that generates images by class; `zellige.load` makes it from an exported file of path G.

    Args:
        config: the model's configuration.
        name: the model's name in reports and errors.
        device: the device that it runs on.
        dtype: the dtype of its convolutions.
        open_: opens a runtime of path G for bytes or floats; it takes INPUTS and gives images in either kind.
        single: whether one runtime serves bytes and floats.
    """

    system = "onegan"
    batch = 16

    def __init__(
        self, config: OneGanConfig, name: str, device: torch.device, dtype: torch.dtype,
        open_: Callable[[Literal["uint8", "float"]], Runtime], *, single: bool = False,
    ) -> None:  # fmt: skip
        self.config, self.name, self.device, self.dtype = config, name, device, dtype
        self._open, self._single, self._runtimes = open_, single, dict[str, Runtime]()
        self.choices: list[Choice] = []

    def __getstate__(self) -> dict[str, Any]:
        # Runtimes hold sessions that cannot be copied and weights that a copy must not share; a copy opens its own.
        return self.__dict__ | {"_runtimes": {}}

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of an image in pixels."""
        return self.config.size

    @property
    def precision(self) -> str:
        """fp32, bf16 or fp16."""
        return precision_of(self.dtype)

    def generate(
        self,
        count: int,
        seed: int = 0,
        *,
        child: Classes | None = None,
        parent: Classes | None = None,
        background: Classes | None = None,
        like: Any = None,
        first: int = 0,
        as_: As = "numpy",
    ) -> Any:
        """Images under a seed; image k is the same for every `count`, and has the same pose with any classes.

        Args:
            count: number of images, 1 or more.
            seed: 0 or more.
            child: class of style, one or [count]; None draws it from the classes that training pairs with the parent.
            parent: class of shape, one or [count]; None takes the child's, or draws it if training draws it apart.
            background: class of the background; None takes the parent's, or the child's if the configuration says so.
            like: an image, or an image file, whose classes are taken; no other class may be given then.
            first: number of the first image.
            as_: "numpy" for uint8 [count, R, R, 3]; "torch" for the same as a tensor on the model's device; "cupy" for
                the same as a CuPy array there; "float" for a float32 tensor [count, 3, R, R] in [-1, 1], not rounded to
                bytes.
        Returns:
            the images in the kind that `as_` names.
        Raises:
            SizeError: `count` is below 1, or the seed is negative.
            TaskError: the model has no such class, or `like` and a class are given.
            ShapeError, DeviceError: there is no such `as_`, or the device does not have it.
        """
        as_ = checked_as(as_, self.device)
        if like is not None:
            others = {"child": child, "parent": parent, "background": background}
            if given := next((name for name, value in others.items() if value is not None), None):
                raise TaskError(f"like takes the classes from an image; leave out like, or {given}")
            child, parent = self._classes_of(like)
        latents, shares = draw_latents(self.config, seed, count, first)
        chosen = self._chosen("child", child, count), self._chosen("parent", parent, count)
        children, parents = draw_pairs(self.config, *chosen, shares)
        return self._generate(latents, children, parents, self._chosen("background", background, count), as_)

    def warm(self, counts: Iterable[int]) -> None:
        """Do now the extra work of the first calls of `generate` for these numbers of images, such as captures."""
        classes, latents = np.zeros(1, np.int64), np.zeros((1, self.config.latent), np.float32)
        self._runtime("uint8").warm(counts, (classes, classes, latents, classes))

    @own_modes()
    def _generate(
        self,
        latents: npt.NDArray[np.float32],
        children: Indices,
        parents: Indices,
        backgrounds: Indices | None,
        as_: As = "numpy",
    ) -> Any:
        if backgrounds is None:
            backgrounds = parents if self.config.background_classes == "parent" else children
        runtime = self._runtime("float" if as_ == "float" else "uint8")
        rows = runtime.run((children, parents, latents, backgrounds), host=as_ == "numpy")
        return converted(joined(rows, len(latents), lent=runtime.lends), as_, self.name)

    def _classes_of(self, image: Any) -> tuple[int, int]:
        """Child and parent class of an image."""
        raise TaskError(
            f"{self.name} was exported to generate, and reads no classes off an image; give its checkpoint for like"
        )

    def _runtime(self, output: Literal["uint8", "float"]) -> Runtime:
        """The runtime for bytes or floats, opened when it is first asked for."""
        key = "any" if self._single else output
        if key not in self._runtimes:
            self._runtimes[key] = self._open(output)
        return self._runtimes[key]

    def _chosen(self, kind: str, classes: Classes | None, count: int) -> Indices | None:
        return None if classes is None else chosen_classes(self.config, self.name, kind, classes, count)
