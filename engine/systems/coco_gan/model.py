"""A COCO-GAN loaded from its checkpoint: all kinds of pictures from its patches, and patch guidance."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from zellige.errors import CheckpointError, ShapeError, TaskError

from ....kernels.op.levels import values_of
from ...checkpoint.file import Header, read_tensors, validated
from ...layers.ambient import own_modes
from ...layers.batch_invariance import make_batch_invariant
from ...layers.constants import fill_constants
from ...layers.precision import cast_maps
from ...panorama.journal import Forms
from ...panorama.patches import PatchMaker
from ...rewrite.for_onnx import rewrite_for_graphs
from ...rewrite.plan import rewritten, rewritten_as
from ...runtimes import checked_name
from ...runtimes.graph_file import EXPORT_AGAIN, GraphFile
from .config import CocoGanConfig
from .critic import Discriminator, Head
from .generator import Generator
from .graph_patches import GraphPatches, exported_patches, file_patches
from .images import CocoGanImages
from .patches import CocoGanPatches
from .pictures import PatchPictures

__all__ = ["PREFIX", "RUNS", "CocoGan", "build", "example", "open_graph", "open_model"]

Pixels = npt.NDArray[np.uint8]
ModuleT = TypeVar("ModuleT", bound=nn.Module)
RUNS = ("generate", "patches", "strip")  # the graphs from which a model can be opened
PREFIX = "generator."  # of its tensors in a model file
_PLANNED = 64  # patches in the batch that layers' forms are chosen with


def build(config: CocoGanConfig) -> Generator:
    """Build the networks that the graphs need, for inference."""
    return Generator(config, spectral=False)


def example(config: CocoGanConfig) -> tuple[Any, ...]:
    """Arguments of the networks: a small batch of blocks, with which layers' forms are chosen."""
    block = config.still_block
    count = _PLANNED // (block[0] * block[1])
    return torch.zeros(count, config.latent), torch.zeros(count, config.lattice.dimensions), block


def open_model(
    header: Header, name: str, device: torch.device, dtype: torch.dtype, *, rewrite: bool = True, runtime: str = "torch"
) -> "CocoGan":
    """Open the model of a checkpoint; arguments as of `CocoGan`."""
    return CocoGan(header, name, device, dtype, rewrite=rewrite, runtime=runtime)


def open_graph(task: str, header: Header, graph: GraphFile) -> PatchPictures | CocoGanImages:
    """Open the model of an exported file that holds one of the graphs in RUNS.

    Raises:
        CheckpointError: the file's graph contradicts its configuration.
    """
    config = validated(header, CocoGanConfig)
    if task == "generate":
        graph.check({"latent": [config.latent]}, config.size, config.channels)
        return CocoGanImages(config, graph.name, graph.device, graph.dtype, graph.open())
    block, conditions = (1, 1), {"latent": [config.latent]}
    if task == "strip":
        if not config.dense:
            raise CheckpointError(f"{graph.path} holds strips of a model without dense places; {EXPORT_AGAIN}")
        block, conditions = config.strip_block, {"latents": [*config.strip_cells, config.latent]}
    down, across = block
    conditions["coordinates"] = [config.lattice.dimensions]
    graph.check(conditions, (down * config.patch, across * config.patch), config.channels)
    with torch.device("meta"):  # where it stays, because only its shapes are used, to predict memory
        generator = build(config)
    generator.eval().requires_grad_(False)
    return PatchPictures(generator, graph.name, file_patches(graph, config, block), graph.path)


class CocoGan(PatchPictures):
    """A loaded COCO-GAN; `zellige.load` makes it.

    Args:
        header: the checkpoint's header.
        name: the model's name in reports and errors.
        device: the device that it runs on.
        dtype: the dtype of its convolutions; conditions and norms stay in float32.
        rewrite: run layers in the exact rewrites that are faster here, which `choices` lists.
        runtime: the runtime of the patches: "torch", "onnx" or "tensorrt". The last two run the generator with the
            rewrites for graphs.
    Raises:
        CheckpointError: the configuration is refused, or the tensors do not fit it.
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
        self.header, self.config = header, validated(header, CocoGanConfig)
        self.device, self.dtype = device, dtype
        super().__init__(self.trained(), name, self._by(engine) if engine != "torch" else None, header.path)
        self.choices = rewritten(self.generator, self._small_batch) if rewrite and engine == "torch" else []
        if device.type == "cpu" and engine == "torch":
            make_batch_invariant(self.generator)

    @own_modes()
    def trained(self) -> Generator:
        """The generator as it was trained, read from the file again, because compilers and exporters change it."""
        return cast_maps(self._load(Generator, PREFIX), self.dtype)

    def patch_guided(self, macro: Pixels) -> Pixels:
        """Full images whose latents are estimated from real macro patches, z = Q(h(s)), from any place of a picture.

        Args:
            macro: uint8 [n, K, K, 3].
        Returns:
            uint8 [n, H, W, 3]: coherent images with the traits of the patches, which they do not contain exactly.
        Raises:
            TaskError: the model has no latent head.
            ShapeError: the patches are not K x K.
        """
        return self.from_latents(self.estimate_latents(macro))

    @own_modes()
    @torch.inference_mode()
    def estimate_latents(self, macro: Pixels) -> npt.NDArray[np.float32]:
        """Estimate the latents Q(h(s)), float32 [n, latent], of real macro patches, uint8 [n, K, K, 3]."""
        side, macro = self.config.macro, np.asarray(macro)
        if not self.config.latent_head:
            raise TaskError(
                f"{self.name} was trained without a latent head, which estimates the latent of a patch; "
                "train one with --set model.latent_head=true --set content=100"
            )
        if macro.ndim != 4 or macro.shape[1:] != (side, side, self.config.channels) or macro.dtype != np.uint8:
            raise ShapeError(
                f"macro patches must be uint8 [n, {side}, {side}, {self.config.channels}], "
                f"not {macro.dtype} {list(macro.shape)}"
            )
        critic = self._load(Discriminator, "critic.")
        head = self._load(
            lambda config, **kw: Head(critic.features, config.latent, config.head_width, **kw), "latent_head."
        )
        images = values_of(torch.from_numpy(macro).to(self.device)).permute(0, 3, 1, 2)
        latents: Tensor = head(critic(images, None)[1])
        return latents.cpu().numpy()

    def _in_forms(self, forms: Forms) -> PatchMaker:
        generator = self.trained()
        if forms is not None:
            rewritten_as(generator, forms)
        if self.device.type == "cpu":
            make_batch_invariant(generator)
        return CocoGanPatches(generator)

    def _by(self, engine: str) -> GraphPatches:
        generator = self.trained()
        rewrite_for_graphs(generator)
        return exported_patches(engine, generator.cpu(), self.device)

    def _small_batch(self) -> None:
        """Run one batch of blocks, of which panoramas and images are made."""
        latents, coordinates, block = example(self.config)
        self.generator(latents.to(self.device), coordinates.to(self.device), block)

    @own_modes()
    def _load(self, build: Callable[..., ModuleT], prefix: str) -> ModuleT:
        with torch.device("meta"):
            module = build(self.config, spectral=False)
        counters = [name for name, tensor in module.state_dict().items() if not tensor.is_floating_point()]
        expected = {name: tensor.shape for name, tensor in module.state_dict().items() if name not in counters}
        tensors = read_tensors(self.header, expected, prefix)
        # Batch norms have counters of training batches, which the file lacks and inference does not use.
        zeros = {name: torch.zeros((), dtype=torch.int64) for name in counters}
        module.load_state_dict({name: t.float() for name, t in tensors.items()} | zeros, assign=True)
        fill_constants(module)
        module = module.eval().requires_grad_(False).to(self.device)
        return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
