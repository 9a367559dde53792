"""Key patches at work: one image of patches from anywhere, and images made again from their key patches."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zellige.errors import DeviceError, TaskError

from ....kernels.op.levels import values_of
from ...checkpoint.file import Header, read_tensors, validated
from ...device import precision_of
from ...files.squares import Images, Squares, cut_squares
from ...layers.ambient import own_modes
from ...layers.batch_invariance import make_batch_invariant
from ...layers.precision import cast_maps
from ...rewrite.fold_norm import fold_norms
from ...rewrite.plan import Choice, rewritten
from ...runtimes import checked_name, converted
from ...runtimes.graph_file import GraphFile
from .config import KeyPatchConfig
from .networks import Composition, Discriminator, KeyPatchNetworks, Parts
from .parts import PatchSet, Pictures, as_pictures, key_patches, noisy, patches_of, read_boxes, with_noise
from .rows import row_of
from .selection import narrowed

__all__ = ["PREFIX", "RUNS", "Composed", "KeyPatch", "build", "example", "open_graph", "open_model"]

Pixels = npt.NDArray[np.uint8]

_CPU = torch.device("cpu")
PREFIX = "networks."  # of the tensors of KeyPatchNetworks in a model file
RUNS = ()  # of an exported file nothing is made without patches
_ENCODED = 96  # patches that the encoder takes at once; more are added up piece by piece


def build(config: KeyPatchConfig) -> KeyPatchNetworks:
    """The networks that the graphs need."""
    return KeyPatchNetworks(config)


def example(config: KeyPatchConfig) -> tuple[Tensor, ...]:
    """Arguments of the networks, images of as many patches as in training, that rewrites are chosen with.

    They are two images: forms that are fastest for a single one read the fewest weights, and lose in any batch.
    """
    patches = torch.zeros(2, config.patches, 3, *config.size)
    z = (torch.zeros(2, config.z_dim),) if config.z_dim else ()
    return patches, torch.ones(2, config.patches), *z


def open_model(
    header: Header, name: str, device: torch.device, dtype: torch.dtype, *, rewrite: bool = True, runtime: str = "torch"
) -> "KeyPatch":
    """Open the model of a checkpoint; arguments as of `KeyPatch`."""
    return KeyPatch(header, name, device, dtype, rewrite=rewrite, runtime=runtime)


def open_graph(task: str, header: Header, graph: GraphFile) -> Any:
    """None of this system's graphs is opened as a model: RUNS is empty."""
    raise TaskError(f"{graph.path} makes images of patches, which no seed draws; run it by onnxruntime")


@dataclass(frozen=True)
class Composed:
    """What is made of patches.

    Args:
        image: uint8 [N, R, R, 3].
        mask: of where the patches belong, uint8 [N, R, R], 255 times the mask.
        composite: the image times the mask, black elsewhere, uint8 [N, R, R, 3].
        row: of each image its patches, with the image that they are from and their boxes if that is known, then
            composite, mask and image: uint8 [R, W, 3].
    """

    image: Pixels
    mask: Pixels
    composite: Pixels
    row: list[Pixels]


class KeyPatch:
    """A loaded key-patch model. Made by `zellige.load`.

    Args:
        header: of the checkpoint.
        name: the model goes by this name in reports and errors.
        device: where it runs.
        dtype: of its convolutions; sums, masks and finished images are float32.
        rewrite: run with the exact rewrites that are faster here; `choices` has them. Batch norms are always folded.
        runtime: "torch"; others run exported files of the task `compose`.
    Raises:
        CheckpointError: configuration or tensors do not fit. DeviceError: another runtime.
    """

    system = "key-patch"
    batch = 16

    @own_modes()
    def __init__(
        self, header: Header, name: str, device: torch.device, dtype: torch.dtype, *, rewrite: bool = True,
        runtime: str = "torch",
    ) -> None:  # fmt: skip
        if checked_name(runtime, dtype, device) != "torch":
            raise DeviceError(
                f"{name} runs by the runtime 'torch'; for {runtime!r} export it with `zellige export --task compose`"
            )
        self.header, self.name, self.device, self.dtype = header, name, device, dtype
        self.config = validated(header, KeyPatchConfig)
        self.networks = self._read(device)
        fold_norms(self.networks)  # before it is cast: folded weights are rounded once
        self._cast(self.networks)
        inputs = tuple(rows.to(device) for rows in example(self.config))
        self.choices: list[Choice] = rewritten(self.networks, lambda: self.networks(*inputs)) if rewrite else []
        if device.type == "cpu":
            make_batch_invariant(self.networks)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of an image in pixels."""
        return self.config.size

    @property
    def precision(self) -> str:
        """fp32, bf16 or fp16."""
        return precision_of(self.dtype)

    def read(self, source: str, given: Any) -> Pictures | Squares:
        """Patches or images with boxes, of any sizes; or images as squares."""
        return as_pictures(given) if source == "patches" else cut_squares(given, self.config.resolution)

    def warm(self, counts: Iterable[int]) -> None:
        """Run the networks once for these numbers of images."""
        for count in counts:
            blank = np.zeros((self.config.patches, *self.size, 3), np.uint8)
            self.images([PatchSet(blank)] * count)

    def compose(
        self, patches: Any, box: Sequence[str] | None = None, boxes: str | None = None, noise: float = 0.0,
        seed: int = 0,
    ) -> Composed:  # fmt: skip
        """One image from patches, in whatever order.

        Args:
            patches: files or arrays uint8 [h, w, 3], one or more: patches as they are, or with `box` the images that
                they are cut out of.
            box: x,y,width,height in pixels of the image, one for every file, or all of them for a single file.
            boxes: a text file of boxes, one a line, in place of `box`.
            noise: deviation of normal noise on the last patch, whose pixels are -1 to 1.
            seed: of the noise, and of z.
        Returns:
            one row.
        Raises:
            ShapeError: no patch, a box outside of its image, or not as many boxes as files.
            TaskError: the model has no mask decoder.
        """
        if boxes is not None:
            box = read_boxes(boxes, box)
        return self.compose_all([patches_of(as_pictures(patches), box, self.config)], noise, seed)

    def complete(
        self, images: Images, patches: int = 3, select: str = "edges", edge_model: str | None = None,
        area: float | None = None, noise: float = 0.0, seed: int = 0,
    ) -> Composed:  # fmt: skip
        """Images made again from a few of their patches; nothing else of them is seen.

        Args:
            images: N of them.
            patches: of each image, 1 or more.
            select: "edges" or "edgeboxes" for key patches, "random" for random places.
            edge_model: for "edgeboxes", a file of structured edges in OpenCV's format; None takes a plain gradient.
            area: greatest share of an image that a patch covers; None takes the model's.
            noise: deviation of noise on the last patch.
            seed: of random places, noise and z.
        Raises:
            DataError: an image has no edges, so that no patch of it is a key patch. TaskError: no mask decoder.
        """
        squares = cut_squares(images, self.config.resolution)
        sets = [
            key_patches(
                pixels, patches, select, narrowed(self.config, area), np.random.default_rng((seed, index)), edge_model
            )
            for index, pixels in enumerate(squares.pixels)
        ]
        return self.compose_all(sets, noise, seed)

    def compose_all(self, sets: Sequence[PatchSet], noise: float = 0.0, seed: int = 0) -> Composed:
        """An image from each set of patches; sets may differ in number."""
        if not self.config.has_mask:
            raise TaskError(
                f"{self.name} has no mask decoder, so that it makes no mask; its images alone come from `images` in "
                "Python"
            )
        images, masks, composites = [], [], []
        for made in self._made(sets, noise, seed):
            assert made.mask is not None
            images.append(converted(made.image, "numpy", self.name))
            masks.append(made.mask[:, 0].mul(255).round().byte().cpu().numpy())
            composites.append(converted((made.image + 1) * made.mask - 1, "numpy", self.name))
        image, mask, composite = map(np.concatenate, (images, masks, composites))
        seen = [with_noise(one, noise, seed, k) for k, one in enumerate(sets)]
        rows = [row_of(*parts) for parts in zip(seen, composite, mask, image, strict=True)]
        return Composed(image, mask, composite, rows)

    def images(self, sets: Sequence[PatchSet], noise: float = 0.0, seed: int = 0) -> Pixels:
        """The images alone, which models without a mask decoder make too: uint8 [N, R, R, 3]."""
        return np.concatenate([converted(made.image, "numpy", self.name) for made in self._made(sets, noise, seed)])

    def masks(self, sets: Sequence[PatchSet]) -> npt.NDArray[np.float32]:
        """Where the patches of each set belong: float32 [N, R, R] in [0, 1]."""
        masks = [made.mask for made in self._made(sets, 0.0, 0)]
        return np.concatenate([mask[:, 0].cpu().numpy() for mask in masks if mask is not None])

    @own_modes()
    def features(self, images: Images) -> npt.NDArray[np.float32]:
        """What the last map of D says of images, float32 [N, C * 16]. Source: supplementary, section 4."""
        critic, pixels = self.critic(), cut_squares(images, self.config.resolution).pixels
        found = []
        with torch.inference_mode():
            for start in range(0, len(pixels), self.batch):
                x = values_of(torch.from_numpy(pixels[start : start + self.batch]).to(self.device)).permute(0, 3, 1, 2)
                found.append(critic.features(x).flatten(1).float().cpu().numpy())
        return np.concatenate(found)

    @own_modes()
    def critic(self) -> Discriminator:
        """The discriminator that the model was trained against, in float32."""
        with torch.device("meta"):
            critic = Discriminator(self.config)
        return self._filled(critic, "critic.").to(self.device)

    @own_modes()
    @torch.inference_mode()
    def _made(self, sets: Sequence[PatchSet], noise: float, seed: int) -> Iterator[Composition]:
        """Batch by batch, in order; sets of one number of patches go together."""
        first = 0
        for _, group in groupby(sets, key=lambda one: len(one.patches)):
            alike = list(group)
            for start in range(0, len(alike), self.batch):
                part = alike[start : start + self.batch]
                pixels = torch.from_numpy(np.stack([one.patches for one in part])).to(self.device)
                numbers = range(first, first + len(part))
                yield self.networks.decode(self._encoded(pixels, noise, seed, numbers), self._z(seed, numbers))
                first += len(part)

    def _encoded(self, pixels: Tensor, noise: float, seed: int, numbers: range) -> Parts:
        """Summed maps and encodings of patches, uint8 [N, K, R, R, 3]; only so many are in the network at once."""
        # One network covers 1 to N patches: it was trained with N, so fewer are repeated up to N.
        known, given = self.config.patches, pixels.shape[1]
        counts = torch.tensor([max(1, (known - k + given - 1) // given) for k in range(given)], device=pixels.device)
        counts = counts.float().expand(len(pixels), -1)
        step = max(1, _ENCODED // len(pixels))
        total: Parts | None = None
        for k in range(0, given, step):
            patches = values_of(pixels[:, k : k + step]).permute(0, 1, 4, 2, 3)
            if k + step >= given:
                patches = noisy(patches, noise, seed, numbers)
            part = self.networks.encode(patches, counts[:, k : k + step])
            total = part if total is None else total + part
        assert total is not None  # a set has one patch or more
        return total

    def _z(self, seed: int, numbers: range) -> Tensor | None:
        if not self.config.z_dim:
            return None
        drawn = [np.random.default_rng((seed, k)).uniform(-1, 1, self.config.z_dim) for k in numbers]
        return torch.from_numpy(np.stack(drawn)).float().to(self.device)

    @own_modes()
    def trained(self, device: torch.device = _CPU) -> KeyPatchNetworks:
        """The networks as they were trained, read again: for compilers and exporters, which may change them."""
        networks = self._read(device)
        self._cast(networks)
        return networks

    def _read(self, device: torch.device) -> KeyPatchNetworks:
        with torch.device("meta"):
            networks = KeyPatchNetworks(self.config)
        return self._filled(networks, PREFIX).to(device)

    def _cast(self, networks: KeyPatchNetworks) -> None:
        cast_maps(networks, self.dtype)
        networks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _filled(self, network: Any, prefix: str) -> Any:
        """A network on the meta device with its tensors of the file, in float32 and evaluation."""
        state = {n: t for n, t in network.state_dict().items() if not n.endswith("num_batches_tracked")}
        tensors = read_tensors(self.header, {name: tensor.shape for name, tensor in state.items()}, prefix)
        counters = {n: torch.zeros((), dtype=torch.int64) for n in network.state_dict() if n not in state}
        network.load_state_dict({name: t.float() for name, t in tensors.items()} | counters, assign=True)
        return network.eval().requires_grad_(False)
