"""A OneGAN loaded from its checkpoint, with all its tasks: images by class, masks, clusters, styles, backgrounds."""

from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zellige.errors import ShapeError

from ....kernels.op.levels import values_of
from ...checkpoint.file import Header, read_tensors, validated
from ...files.squares import Images, Squares, cut_squares, whole_mask
from ...layers.ambient import own_modes
from ...layers.batch_invariance import make_batch_invariant
from ...layers.constants import fill_constants
from ...layers.precision import cast_maps
from ...rewrite.for_onnx import rewrite_for_graphs
from ...rewrite.plan import rewritten
from ...runtimes import Runtime, checked_name, converted, exported, open_runtime
from ...runtimes.graph_file import GraphFile
from .classes import Classes, chosen_classes, draw_latents
from .config import OneGanConfig
from .images import INPUTS, OneGanImages
from .networks import Codes, Encoding, OneGanNetworks
from .results import Clusters, Parts

__all__ = ["PREFIX", "RUNS", "OneGan", "build", "example", "open_graph", "open_model"]

Pixels = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]
Rows = TypeVar("Rows", Pixels, Indices, Tensor)

_CPU = torch.device("cpu")
RUNS = ("generate",)  # the graphs from which a model can be opened
PREFIX = "networks."  # before the names of OneGanNetworks' tensors in a checkpoint


def build(config: OneGanConfig) -> OneGanNetworks:
    """Build the networks that the graphs need."""
    return OneGanNetworks(config)


def example(config: OneGanConfig) -> tuple[Tensor, ...]:
    """Arguments of the networks for one image, with which layers' forms are chosen.

    One image is enough, because wide maps always run one by one, and rewrites of deep ones gain even more in batches.
    """
    zeros = torch.zeros(1, dtype=torch.int64)
    return zeros, zeros, torch.zeros(1, config.latent)


def open_model(
    header: Header, name: str, device: torch.device, dtype: torch.dtype, *, rewrite: bool = True, runtime: str = "torch"
) -> "OneGan":
    """Open the model of a checkpoint; arguments as of `OneGan`."""
    return OneGan(header, name, device, dtype, rewrite=rewrite, runtime=runtime)


def open_graph(task: str, header: Header, graph: GraphFile) -> OneGanImages:
    """Open the model of an exported file of the task `generate`.

    Raises:
        CheckpointError: the file's graph contradicts its configuration.
    """
    config = validated(header, OneGanConfig)
    graph.check({name: [config.latent] if name == "latent" else [] for name in INPUTS}, config.size)
    return OneGanImages(config, graph.name, graph.device, graph.dtype, partial(_of_file, graph), single=True)


def _of_file(graph: GraphFile, output: Literal["uint8", "float"]) -> Runtime:
    """Open the file's runtime, whose output is the one that was exported, whatever `output` is."""
    return graph.open()


class OneGan(OneGanImages):
    """A loaded OneGAN; `zellige.load` makes it.

    Every task is one pass. Codes are the means of the encoders' distributions, and pre-images are the bypasses alone
    (beta = 1). All tasks take images as `engine.files.squares.cut_squares` does: arrays of any size or files, whose
    centre squares are used.

    Args:
        header: the checkpoint's header.
        name: the model's name in reports and errors.
        device: the device that it runs on.
        dtype: the dtype of convolutions and the norms after them; codes, class heads and finished images stay in
            float32.
        rewrite: run layers in the exact rewrites that are faster here, which `choices` lists.
        runtime: the runtime of path G: "torch", "onnx" or "tensorrt". The last two run it with the rewrites for graphs.
    Raises:
        CheckpointError: the configuration is refused, or the tensors do not fit it.
    Source: OneGAN, section 4 and supplementary, section D; the wiring of the tasks is this project's reading.
    """

    def __init__(
        self,
        header: Header,
        name: str,
        device: torch.device,
        dtype: torch.dtype,
        *,
        rewrite: bool = True,
        runtime: str = "torch",
    ) -> None:
        engine = checked_name(runtime, dtype, device)
        config = validated(header, OneGanConfig)
        super().__init__(config, name, device, dtype, self._own if engine == "torch" else partial(self._by, engine))
        self.header = header
        self.networks = self.trained(device)
        self.choices = rewritten(self.networks, self._both_paths) if rewrite else []
        if device.type == "cpu":
            make_batch_invariant(self.networks)

    def read(self, source: str, given: Images) -> Squares:
        """Read images or image files into squares, for the tasks; every source is one of images."""
        return cut_squares(given, self.config.resolution)

    def _classes_of(self, image: Any) -> tuple[int, int]:
        found = self.cluster([image])
        return int(found.child[0]), int(found.parent[0])

    def like(self, images: Images, count: int, seed: int = 0) -> Pixels:
        """New images with the classes of each image; the poses are those of `generate` under the seed.

        Returns:
            uint8 [N, count, R, R, 3].
        """
        (latents, _), found = draw_latents(self.config, seed, count), self.cluster(images)
        number = len(found.child)
        made = self._generate(
            np.tile(latents, (number, 1)), np.repeat(found.child, count), np.repeat(found.parent, count), None
        )
        return made.reshape(number, count, *made.shape[1:])

    @own_modes()
    @torch.inference_mode()
    def reconstruct(self, images: Images) -> Parts:
        """Images made again from their encodings, with foreground, whole background and mask."""
        rows = []
        for pixels in self._batches(self.read("images", images).pixels):
            composite = self.networks.reconstruct(self._tensor(pixels))
            rows.append(
                [self._pixels(t) for t in (composite.image, composite.foreground, composite.background)]
                + [_levels(composite.mask)]
            )
        return Parts(*(np.concatenate(part) for part in zip(*rows, strict=True)))

    @own_modes()
    @torch.inference_mode()
    def segment(self, images: Images, soft: bool = False) -> list[Pixels]:
        """Masks of the foreground, each of its image's size, and 0 outside of the image's centre square.

        Returns:
            uint8 [H, W] for each image: 255 if the mask is at least 0.5, else 0; or 255 times the mask if `soft`.
        """
        squares, masks = self.read("images", images), []
        for pixels in self._batches(squares.pixels):
            masks += list(_levels(self._read(self._tensor(pixels))[2]))
        whole = (whole_mask(mask, size) for mask, size in zip(masks, squares.sizes, strict=True))
        return [mask if soft else np.where(mask >= 128, np.uint8(255), np.uint8(0)) for mask in whole]

    @own_modes()
    @torch.inference_mode()
    def cluster(self, images: Images) -> Clusters:
        """The child class and the parent class of each image."""
        children, parents = [], []
        for pixels in self._batches(self.read("images", images).pixels):
            encoding = self.networks.encode(self._tensor(pixels))
            children.append(encoding.child_probabilities.cpu().numpy())
            parents.append(encoding.parent_logits.cpu().numpy())
        probabilities = np.concatenate(children)
        return Clusters(probabilities.argmax(1), np.concatenate(parents).argmax(1), probabilities.max(1))

    @own_modes()
    @torch.inference_mode()
    def styles(self, images: Images) -> npt.NDArray[np.float32]:
        """Style vectors v_c of images, for `translate`: float32 [N, child_vector]."""
        batches = self._batches(self.read("images", images).pixels)
        return np.concatenate(
            [self.networks.codes_of(self.networks.encode(self._tensor(t))).child.cpu().numpy() for t in batches]
        )

    @own_modes()
    @torch.inference_mode()
    def translate(self, images: Images, child: Classes | npt.NDArray[np.float32]) -> Pixels:
        """Images in another style; shape, pose and background stay, because E_bg gets the mask of the old style.

        Args:
            images: N images.
            child: class of the style, one or [N]; or style vectors, floating [N, child_vector].
        Returns:
            uint8 [N, R, R, 3].
        Raises:
            TaskError: the model has no such class.
            ShapeError: the vectors are not [N, child_vector].
        """
        squares = self.read("images", images)
        styles = self._style_vectors(child, len(squares))
        made = []
        for pixels, style in zip(self._batches(squares.pixels), self._batches(styles), strict=True):
            x = self._tensor(pixels)
            encoding, codes, mask = self._read(x)
            codes = replace(codes, child=style)
            made.append(self._pixels(self.networks.decode(x, encoding, codes, mask=mask).image))
        return np.concatenate(made)

    def inpaint(self, images: Images) -> Pixels:
        """Images without their object: the whole background is made again, uint8 [N, R, R, 3]."""
        return self.reconstruct(images).background

    @own_modes()
    @torch.inference_mode()
    def recompose(self, images: Images, background: Images) -> Pixels:
        """The objects of images on other backgrounds.

        Args:
            images: N images, whose objects are taken.
            background: one image for all objects, or N images.
        Returns:
            uint8 [N, R, R, 3].
        Raises:
            ShapeError: there are neither N backgrounds nor one.
        """
        things, there = self.read("images", images), self.read("background", background)
        if len(there) not in (1, len(things)):
            raise ShapeError(
                f"{len(there)} backgrounds do not go with {len(things)} objects; give as many, or one background"
            )
        which = np.arange(len(things)) % len(there)
        made = []
        for some, pixels in zip(self._batches(which), self._batches(things.pixels), strict=True):
            place = self._tensor(there.pixels[some])
            mask = self._read(place)[2]
            encoding = self.networks.encode(self._tensor(pixels))
            composite = self.networks.decode(place, encoding, self.networks.codes_of(encoding), mask=mask)
            made.append(self._pixels(composite.image))
        return np.concatenate(made)

    def _read(self, images: Tensor) -> tuple[Encoding, Codes, Tensor]:
        """Steps 1 to 3 of path R without the foreground's colours: encoding, codes and mask."""
        encoding = self.networks.encode(images)
        codes = self.networks.codes_of(encoding)
        mask = self.networks.foreground(encoding.bypass, codes.parent, codes.child)[1]
        return encoding, codes, mask.float().sigmoid()

    def _style_vectors(self, child: Classes | npt.NDArray[np.float32], count: int) -> Tensor:
        vectors, shape = np.asarray(child), (count, self.config.child_vector)
        if vectors.dtype.kind != "f":
            classes = chosen_classes(self.config, self.name, "child", vectors, count)
            return self.networks.child_vectors(torch.from_numpy(classes).to(self.device))
        if vectors.shape != shape:
            raise ShapeError(f"style vectors must be {list(shape)}, one an image; got {list(vectors.shape)}")
        return torch.from_numpy(vectors.astype(np.float32)).to(self.device)

    def _batches(self, rows: Rows) -> list[Rows]:
        return [rows[k : k + self.batch] for k in range(0, len(rows), self.batch)]

    def _tensor(self, pixels: Pixels) -> Tensor:
        """Turn bytes [N, R, R, 3] into float32 [N, 3, R, R] in [-1, 1]."""
        return values_of(torch.from_numpy(pixels).to(self.device)).permute(0, 3, 1, 2)

    def _pixels(self, images: Tensor) -> Pixels:
        """Turn images [N, 3, R, R] in [-1, 1] into bytes [N, R, R, 3]; images with NaN or infinities are refused."""
        pixels: Pixels = converted(images, "numpy", self.name)
        return pixels

    @own_modes()
    def trained(self, device: torch.device = _CPU) -> OneGanNetworks:
        """The networks as they were trained, read from the file again, because compilers and exporters change them."""
        with torch.device("meta"):
            networks = OneGanNetworks(self.config)
        expected = {name: tensor.shape for name, tensor in networks.state_dict().items()}
        tensors = read_tensors(self.header, expected, PREFIX)
        networks.load_state_dict({name: t.float() for name, t in tensors.items()}, assign=True)
        fill_constants(networks)
        networks = networks.eval().requires_grad_(False).to(device)
        cast_maps(networks, self.dtype)
        return networks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _own(self, output: Literal["uint8", "float"]) -> Runtime:
        return open_runtime("torch", partial(self.networks.forward, output=output), self.device)

    def _by(self, engine: str, output: Literal["uint8", "float"]) -> Runtime:
        networks = self.trained()  # not self.networks, whose rewrites would fix the batch size of a graph
        rewrite_for_graphs(networks)
        classes, latents = np.zeros(2, np.int64), np.zeros((2, self.config.latent), np.float32)
        run = partial(networks.forward, output=output)
        return exported(engine, run, (classes, classes, latents, classes), self.device, INPUTS)

    def _both_paths(self) -> None:
        """Run one image through every layer."""
        self.networks(*(rows.to(self.device) for rows in example(self.config)))
        self.networks.reconstruct(torch.zeros(1, 3, *self.size, device=self.device))


def _levels(mask: Tensor) -> Pixels:
    """Turn masks [N, 1, R, R] into bytes [N, R, R], round(255 mask), half to even, so that 0.5 becomes 128."""
    return mask[:, 0].mul(255).round_().byte().cpu().numpy()
