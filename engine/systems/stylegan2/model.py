"""A StyleGAN2 loaded from its checkpoint."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zellige.errors import SizeError, TaskError

from ....kernels.op.levels import bytes_of
from ...checkpoint.file import Header, read_tensors, validated
from ...layers.ambient import own_modes
from ...layers.batch_invariance import make_batch_invariant
from ...layers.precision import cast_maps
from ...rewrite.for_onnx import rewrite_for_graphs
from ...rewrite.plan import rewritten
from ...runtimes import BUCKETS, As, Runtime, checked_name, exported, open_runtime
from ...runtimes.graph_file import GraphFile
from .config import StyleGan2Config
from .discriminator import Discriminator
from .generator import Generator
from .graphs import noise_length, noises
from .images import INPUTS, StyleGan2Images, drawn

__all__ = [
    "PREFIX",
    "RUNS",
    "StyleGan2",
    "build",
    "example",
    "open_graph",
    "open_model",
    "read_discriminator",
    "read_generator",
]

Floats = npt.NDArray[np.float32]

_CPU = torch.device("cpu")
RUNS = ("generate",)  # the graphs from which a model can be opened
PREFIX = "generator."  # before the names of the generator's tensors in a checkpoint
CRITIC = "discriminator."
_LARGEST_MAP = 2**28  # bytes of a layer's map of a batch


def build(config: StyleGan2Config) -> Generator:
    """Build the networks that the graphs need."""
    return Generator(config)


def example(config: StyleGan2Config) -> tuple[Tensor, ...]:
    """Arguments of the networks, two images, with which layers' forms are chosen.

    They are two, because forms that read the fewest weights are fastest for a single image and lose in any batch.
    """
    return (torch.zeros(2, config.z_dim),)


def open_model(
    header: Header, name: str, device: torch.device, dtype: torch.dtype, *, rewrite: bool = True, runtime: str = "torch"
) -> "StyleGan2":
    """Open the model of a checkpoint; arguments as of `StyleGan2`."""
    return StyleGan2(header, name, device, dtype, rewrite=rewrite, runtime=runtime)


def open_graph(task: str, header: Header, graph: GraphFile) -> StyleGan2Images:
    """Open the model of an exported file of the task `generate`.

    Raises:
        CheckpointError: the file's graph contradicts its configuration.
    """
    config = validated(header, StyleGan2Config)
    graph.check(dict(zip(INPUTS, ([config.z_dim], [config.style_count]), strict=True)), config.size)
    opened = partial(_of_file, graph)
    return StyleGan2Images(config, graph.name, graph.device, graph.dtype, opened, single=True)


def _of_file(graph: GraphFile, output: str) -> Runtime:
    """Open the file's runtime, whose output is the one that was exported, whatever `output` is."""
    return graph.open()


def read_generator(header: Header, config: StyleGan2Config, device: torch.device, prefix: str = PREFIX) -> Generator:
    """Read a generator as it was trained, in evaluation and float32."""
    with torch.device("meta"):
        generator = Generator(config)
    return _filled(generator, header, prefix).to(device)


def read_discriminator(header: Header, config: StyleGan2Config, device: torch.device) -> Discriminator | None:
    """Read the discriminator of a generator's file, in evaluation and float32; None if it has none."""
    if not any(name.startswith(CRITIC) for name in header.tensors):
        return None
    with torch.device("meta"):
        critic = Discriminator(config)
    made: Discriminator = _filled(critic, header, CRITIC).to(device)
    return made


def _filled(network: Any, header: Header, prefix: str) -> Any:
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    tensors = read_tensors(header, shapes, prefix)
    network.load_state_dict({name: t.float() for name, t in tensors.items()}, assign=True)
    return network.eval().requires_grad_(False)


class StyleGan2(StyleGan2Images):
    """A loaded StyleGAN2; `zellige.load` makes it.

    Args:
        header: the checkpoint's header.
        name: the model's name in reports and errors.
        device: the device that it runs on.
        dtype: the dtype of convolutions and maps; style vectors and finished images stay in float32.
        rewrite: run layers in the exact rewrites that are faster here, which `choices` lists.
        runtime: "torch", "onnx" or "tensorrt"; the last two make images with the model's own noise and no mixed styles.
    Attributes:
        layers: names of the layers for `features`: "w", then the blocks "b4", "b8", ... up to the image's.
    Raises:
        CheckpointError: the configuration is refused, or the tensors do not fit it.
    """

    def __init__(
        self, header: Header, name: str, device: torch.device, dtype: torch.dtype, *, rewrite: bool = True,
        runtime: str = "torch",
    ) -> None:  # fmt: skip
        engine = checked_name(runtime, dtype, device)
        config = validated(header, StyleGan2Config)
        super().__init__(config, name, device, dtype, self._own if engine == "torch" else partial(self._by, engine))
        self.header = header
        self.generator = self.trained(device)
        self._cast(self.generator)
        inputs = tuple(rows.to(device) for rows in example(config))
        self.choices = rewritten(self.generator, lambda: self.generator(*inputs)) if rewrite else []
        if device.type == "cpu":
            make_batch_invariant(self.generator)
        self.layers = ("w", *(f"b{side}" for side in config.sides))

    def _generate(
        self, latents: Floats, shares: Floats, noise: Floats | None, others: Floats | None, mix_from: int, as_: As
    ) -> Any:
        if (noise is None and others is None) or self._open != self._own:
            return super()._generate(latents, shares, noise, others, mix_from, as_)
        if not 1 <= mix_from < self.config.style_count:
            last = self.config.style_count - 1
            raise SizeError(
                f"{self.name} has the layers 0 to {last}; mixed styles begin at 1 to {last}, not {mix_from}"
            )
        if noise is None:
            stored = [layer.flatten() for layer in self._stored()]
            noise = np.broadcast_to(torch.cat(stored).cpu().numpy(), (len(latents), noise_length(self.config)))
        with own_modes(), torch.inference_mode():
            styles = self._styles(latents, shares)
            if others is not None:
                styles = np.concatenate([styles[:, :mix_from], self._styles(others, shares)[:, mix_from:]], 1)
            return self._run(f"{'float' if as_ == 'float' else 'uint8'}, styles", (styles, noise), as_)

    def draw(self, seed: int, first: int, count: int) -> Tensor:
        """Latents [count, z_dim] of the samples that `generate` makes under a seed."""
        return torch.from_numpy(drawn(seed, count, self.config.z_dim, first)).to(self.device)

    @own_modes()
    @torch.inference_mode()
    def features(self, latents: Tensor, layer: str) -> Tensor:
        """The maps [N, C, S, S] of a block's second convolution, float32, or style vectors as [N, w_dim, 1, 1].

        Raises:
            TaskError: there is no such layer.
        """
        if layer not in self.layers:
            raise TaskError(f"{self.name} has no layer {layer!r}; its layers are {', '.join(self.layers)}")
        w = self.generator.map(latents)
        if layer == "w":
            return w[:, :, None, None]
        side = int(layer.removeprefix("b"))
        return self.generator.begin(self.generator.styles(w), side=side).map.float()

    @own_modes()
    @torch.inference_mode()
    def images(self, latents: Tensor) -> Tensor:
        """Images [N, 3, R, R] in [-1, 1], float32."""
        return self.generator(latents).clamp(-1, 1)

    @own_modes()
    def trained(self, device: torch.device = _CPU) -> Generator:
        """The generator as it was trained, read from the file again, with activations scaled instead of weights."""
        generator = read_generator(self.header, self.config, device)
        generator.scale_activations()
        return generator

    def _cast(self, generator: Generator) -> None:
        cast_maps(generator, self.dtype)
        generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _styles(self, latents: Floats, shares: Floats) -> Floats:
        w = self.generator.map(torch.from_numpy(latents).to(self.device))
        return self.generator.styles(w, torch.from_numpy(shares).to(self.device)).cpu().numpy()

    def _stored(self) -> list[Tensor]:
        """The stored maps of noise, in the order of the layers."""
        blocks = (getattr(self.generator, f"b{side}") for side in self.config.sides)
        return [layer.noise for block in blocks for layer in (block.up, block.conv) if layer is not None]

    def _buckets(self) -> tuple[int, ...]:
        """Sizes of batches whose largest map has at most 256 MiB."""
        pairs = zip(self.config.channels, self.config.sides, strict=True)
        widest = max(width * side * side for width, side in pairs) * self.dtype.itemsize
        return tuple(size for size in BUCKETS if size * widest <= _LARGEST_MAP) or (1,)

    def _own(self, output: str) -> Runtime:
        return open_runtime("torch", self._finished(output), self.device, self._buckets())

    def _finished(self, output: str) -> Callable[..., Tensor]:
        """A function from a runtime's rows to images, or to bytes."""
        generator, config = self.generator, self.config

        def made(rows: Tensor, more: Tensor) -> Tensor:
            if output.endswith("styles"):
                images = generator.synthesise(rows, noises(config, more))
            else:
                images = generator(rows, more)
            images = images.clamp(-1, 1)
            return images if output.startswith("float") else bytes_of(images.permute(0, 2, 3, 1)).contiguous()

        return made

    def _by(self, engine: str, output: str) -> Runtime:
        generator = self.trained()  # not self.generator, whose rewrites would fix the batch size of a graph
        self._cast(generator)
        rewrite_for_graphs(generator)
        rows = np.zeros((2, self.config.z_dim), np.float32), self._shares(2, 1.0, None)

        def run(latent: Tensor, psi: Tensor) -> Tensor:
            images = generator(latent, psi).clamp(-1, 1)
            return images if output == "float" else bytes_of(images.permute(0, 2, 3, 1))

        return exported(engine, run, rows, self.device, INPUTS, self._buckets())
