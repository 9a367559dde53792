"""Generates a StyleGAN2's images with any runtime."""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from zellige.errors import SizeError, TaskError

from ...device import precision_of
from ...layers.ambient import own_modes
from ...rewrite.plan import Choice
from ...runtimes import As, Runtime, checked_as, converted, joined
from .config import StyleGan2Config
from .graphs import noise_length

__all__ = ["INPUTS", "Noise", "StyleGan2Images", "drawn"]

Floats = npt.NDArray[np.float32]
Noise = Literal["stored", "shared", "random"]
INPUTS = ("latent", "psi")  # of the graph `generate`, in order
# Keys of independent random streams; a value must never change, because old seeds would then give new images.
_LATENTS, _NOISE, _SHARED = 0, 1, 2


def drawn(seed: int, count: int, length: int, first: int = 0, stream: int = _LATENTS) -> Floats:
    """Standard normal rows of images `first` to `first + count - 1`, float32 [count, length], each drawn by itself.

    Raises:
        SizeError: `count` is below 1, or the seed or `first` is negative.
    """
    if count < 1:
        raise SizeError(f"{count} images cannot be generated; ask for 1 or more")
    if seed < 0 or first < 0:
        raise SizeError(f"the seed and the first image must be 0 or more, not {seed} and {first}")
    rows = [np.random.default_rng((seed, stream, first + k)).standard_normal(length, np.float32) for k in range(count)]
    return np.stack(rows)


class StyleGan2Images:
    """A model that generates images; `zellige.load` makes it from an exported file of the task `generate`.

    Args:
        config: the model's configuration.
        name: the model's name in reports and errors.
        device: the device that it runs on.
        dtype: the dtype of its maps.
        open_: opens a runtime from latents and psi to images, as bytes or floats.
        single: whether one runtime serves bytes and floats.
    """

    system = "stylegan2"
    batch = 16

    def __init__(
        self, config: StyleGan2Config, name: str, device: torch.device, dtype: torch.dtype,
        open_: Callable[[str], Runtime], *, single: bool = False,
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
        self, count: int, seed: int = 0, *, psi: float = 1.0, cutoff: int | None = None, noise: Noise = "stored",
        mix: int | None = None, mix_from: int = 4, first: int = 0, as_: As = "numpy",
    ) -> Any:  # fmt: skip
        """Images under a seed; image k is the same for every `count`.

        Args:
            count: number of images, 1 or more.
            seed: 0 or more.
            psi: truncation w_avg + psi (w - w_avg) of style vectors: 1 is as trained, 0 the mean image.
            cutoff: layers, from the first, that are truncated; None for all.
            noise: "stored" takes the model's maps, "shared" maps of the seed for all images, "random" others for each.
            mix: seed of second latents, whose styles the layers from `mix_from` on take.
            mix_from: number of that layer, from 1.
            first: number of the first image.
            as_: "numpy" for uint8 [count, R, R, 3]; "torch" for the same as a tensor on the model's device; "cupy" for
                the same as a CuPy array there; "float" for a float32 tensor [count, 3, R, R] in [-1, 1].
        Returns:
            the images in the kind that `as_` names.
        Raises:
            SizeError: a number is out of its bounds.
            TaskError: an exported file was asked for other noise than its own, or for mixed styles.
            ShapeError, DeviceError: there is no such `as_`, or the device does not have it.
        """
        as_ = checked_as(as_, self.device)
        latents = drawn(seed, count, self.config.z_dim, first)
        others = None if mix is None else drawn(mix, count, self.config.z_dim, first)
        return self._generate(latents, self._shares(count, psi, cutoff), self._noise(noise, seed, count, first), others,
                              mix_from, as_)  # fmt: skip

    def warm(self, counts: Iterable[int]) -> None:
        """Do now the extra work of the first calls of `generate` for these numbers of images, such as captures."""
        latents = drawn(0, 1, self.config.z_dim)
        self._runtime("uint8").warm(counts, (latents, self._shares(1, 1.0, None)))

    @own_modes()
    def _generate(
        self, latents: Floats, shares: Floats, noise: Floats | None, others: Floats | None, mix_from: int, as_: As
    ) -> Any:
        if noise is not None or others is not None:
            raise TaskError(
                f"{self.name} was exported with its own noise and takes one latent an image; give its checkpoint for "
                "other noise or mixed styles"
            )
        return self._run("float" if as_ == "float" else "uint8", (latents, shares), as_)

    def _run(self, output: str, rows: tuple[Floats, ...], as_: As) -> Any:
        runtime = self._runtime(output)
        made = runtime.run(rows, host=as_ == "numpy")
        return converted(joined(made, len(rows[0]), lent=runtime.lends), as_, self.name)

    def _shares(self, count: int, psi: float, cutoff: int | None) -> Floats:
        shares = np.full((count, self.config.style_count), psi, np.float32)
        if cutoff is not None:
            shares[:, cutoff:] = 1
        return shares

    def _noise(self, noise: Noise, seed: int, count: int, first: int) -> Floats | None:
        """Rows of numbers for all maps, [count, noise_length]; None for the stored maps."""
        if noise not in ("stored", "shared", "random"):
            raise TaskError(f"there is no noise {noise!r}; it is stored, shared or random")
        length = noise_length(self.config)
        if noise == "stored":
            return None
        if noise == "random":
            return drawn(seed, count, length, first, _NOISE)
        return np.broadcast_to(drawn(seed, 1, length, 0, _SHARED), (count, length))

    def _runtime(self, output: str) -> Runtime:
        """The runtime for a kind of output, opened when it is first asked for."""
        key = "any" if self._single else output
        if key not in self._runtimes:
            self._runtimes[key] = self._open(output)
        return self._runtimes[key]
