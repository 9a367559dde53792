"""A rearranger at work: pictures in the style of one image and the layout of another, and proxy masks."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from zellige.errors import DeviceError, ShapeError, TaskError

from ....kernels.op.levels import values_of
from ...checkpoint.file import Header, read_tensors, validated
from ...device import precision_of
from ...layers.ambient import own_modes
from ...layers.batch_invariance import make_batch_invariant
from ...layers.constants import fill_constants
from ...layers.equalised import fold_gains
from ...layers.precision import cast_maps
from ...rewrite.plan import Choice, rewritten
from ...runtimes import checked_name, converted
from ...runtimes.graph_file import GraphFile
from ..stylegan2.generator import Features
from ..stylegan2.images import drawn
from .conditions import edges_of, lines_of, one_hot
from .config import RearrangerConfig
from .given import Given, as_given, classes_of_picture, labels_of_picture, squares
from .inversion import inverted
from .masks import colours
from .networks import RearrangerNetworks, Source

__all__ = ["PREFIX", "RUNS", "RearrangerModel", "build", "example", "open_graph", "open_model", "read_networks"]

Pixels = npt.NDArray[np.uint8]
Read = Literal["proxy", "image", "labels", "sketch", "edges"]

_CPU = torch.device("cpu")
PREFIX = "networks."  # before the names of RearrangerNetworks' tensors in a checkpoint
RUNS = ()  # nothing of an exported file is drawn from a seed alone


def build(config: RearrangerConfig) -> RearrangerNetworks:
    """The networks that the graphs need."""
    return RearrangerNetworks(config)


def example(config: RearrangerConfig) -> tuple[Tensor, ...]:
    """Arguments of the networks for two images, with which layers' forms are chosen."""
    generator, side = config.generator, config.split
    return (
        torch.zeros(2, generator.style_count, generator.w_dim),
        torch.zeros(2, side, side, dtype=torch.int64),
    )


def open_model(
    header: Header, name: str, device: torch.device, dtype: torch.dtype, *, rewrite: bool = True, runtime: str = "torch"
) -> "RearrangerModel":
    """Open the model of a checkpoint; arguments as of `RearrangerModel`."""
    return RearrangerModel(header, name, device, dtype, rewrite=rewrite, runtime=runtime)


def open_graph(task: str, header: Header, graph: GraphFile) -> Any:
    """None of this system's graphs is opened as a model: RUNS is empty."""
    raise TaskError(
        f"{graph.path} makes images of latents and masks; run it by onnxruntime, as docs/deploying.md shows"
    )


def read_networks(
    header: Header, config: RearrangerConfig, device: torch.device, *, folded: bool = True
) -> RearrangerNetworks:
    """Read networks as they were trained, in evaluation and float32.

    Args:
        header: of the checkpoint, which may hold a mapper that the configuration leaves out.
        config: what is read.
        device: where to.
        folded: whether gains are multiplied in, and activations scaled instead of weights.
    """
    with torch.device("meta"):
        networks = RearrangerNetworks(config)
    names = {name: tensor for name, tensor in networks.state_dict().items() if "num_batches" not in name}
    tensors = read_tensors(header, {name: tensor.shape for name, tensor in names.items()}, PREFIX)
    networks.load_state_dict({name: t.float() for name, t in tensors.items()}, strict=False, assign=True)
    fill_constants(networks)
    for part in networks.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.num_batches_tracked = torch.zeros((), dtype=torch.int64)
    networks = networks.eval().requires_grad_(False)
    if folded:
        networks.generator.scale_activations()
        fold_gains(networks)
    return networks.to(device)


class RearrangerModel:
    """A loaded rearranger; `zellige.load` makes it.

    Features and masks are images of a seed ("seed:7", or "seed:7:2" for its third image, which are those that the
    generator makes under the seed), files or arrays uint8 [H, W, 3].

    Args:
        header: the checkpoint's header.
        name: the model's name in reports and errors.
        device: the device that it runs on.
        dtype: the dtype of convolutions and maps; style vectors and finished images stay in float32.
        rewrite: run layers in the exact rewrites that are faster here, which `choices` lists.
        runtime: "torch"; others run exported files.
    Raises:
        CheckpointError: the configuration is refused, or the tensors do not fit it. DeviceError: another runtime.
    """

    system = "rearranger"
    batch = 8

    @own_modes()
    def __init__(
        self, header: Header, name: str, device: torch.device, dtype: torch.dtype, *, rewrite: bool = True,
        runtime: str = "torch",
    ) -> None:  # fmt: skip
        if checked_name(runtime, dtype, device) != "torch":
            raise DeviceError(
                f"{name} runs by the runtime 'torch'; for {runtime!r} export it with `zellige export --task rearrange`"
            )
        self.header, self.name, self.device, self.dtype = header, name, device, dtype
        self.config = validated(header, RearrangerConfig)
        self.networks = self.trained(device)
        cast_maps(self.networks, dtype)
        self.networks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        inputs = tuple(rows.to(device) for rows in example(self.config))
        self.choices: list[Choice] = rewritten(self.networks, lambda: self._run_all(*inputs)) if rewrite else []
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

    def read(self, source: str, given: Any) -> list[Given]:
        """Seeds, files or arrays, for the tasks."""
        return as_given(source, given)

    def warm(self, counts: Iterable[int]) -> None:
        """Run the networks once for these numbers of images."""
        for count in counts:
            self.rearrange([f"seed:0:{k}" for k in range(count)], "seed:0")

    def rearrange(self, features: Any, mask: Any, read: Read = "proxy", psi: float = 1.0, steps: int = 300) -> Pixels:
        """Images in the style of some and the layout of others.

        Args:
            features: what gives the style, one or N.
            mask: what gives the layout, one or N: images of a seed, or files and arrays as `read` says.
            read: what files and arrays of `mask` are: "proxy", masks in the colours of the task proxy; "image", images,
                which are inverted; "labels", maps of the mapper's classes in their colours; "sketch", drawings of lines
                in black and white; "edges", images whose edges are found.
            psi: truncation of the images of seeds.
            steps: of the inversion of images.
        Returns:
            uint8 [N, R, R, 3].
        Raises:
            ShapeError: there are neither N features and masks nor one of them. DataError: a mask has an unknown colour.
            TaskError: the model has no mapper of this kind.
        """
        self._check_read(read)
        sources, layouts = self.read("features", features), self.read("mask", mask)
        count = max(len(sources), len(layouts))
        if len(sources) not in (1, count) or len(layouts) not in (1, count):
            raise ShapeError(
                f"{len(sources)} features do not go with {len(layouts)} masks; give as many, or one of either"
            )

        def one_batch(rows: Sequence[int]) -> Tensor:
            source = self._repeated(self._source([sources[k % len(sources)] for k in _unique(rows, len(sources))],
                                                 psi, steps), rows, len(sources))  # fmt: skip
            wanted = [layouts[k % len(layouts)] for k in rows]
            labels = self._labels(wanted, read, psi, steps)
            return self.networks.image(source, self.networks.moved(source, labels))

        return self._batches(count, one_batch)

    def proxy(self, features: Any, psi: float = 1.0, steps: int = 300) -> Pixels:
        """The proxy masks of images in colours, uint8 [N, R, R, 3]; arguments as of `rearrange`."""
        given, scale = self.read("features", features), self.config.size[0] // self.config.split
        rows = [self._labels(given[k : k + self.batch], "image", psi, steps) for k in range(0, len(given), self.batch)]
        drawn_ = colours(self.config.clusters)[torch.cat(rows).cpu().numpy()]
        return drawn_.repeat(scale, 1).repeat(scale, 2)

    def project(self, features: Any, psi: float = 1.0, steps: int = 300) -> Pixels:
        """Images as the generator makes them again, uint8 [N, R, R, 3]; arguments as of `rearrange`."""
        given = self.read("features", features)
        return self._batches(
            len(given), lambda rows: self.networks.image(self._source([given[k] for k in rows], psi, steps))
        )

    @own_modes()
    def _batches(self, count: int, run: Callable[[Sequence[int]], Tensor]) -> Pixels:
        made = []
        for start in range(0, count, self.batch):
            with torch.inference_mode():
                images = run(range(start, min(start + self.batch, count))).clamp(-1, 1)
            made.append(converted(images, "numpy", self.name))
        return np.concatenate(made)

    def source(self, features: Any, psi: float = 1.0, steps: int = 300) -> Source:
        """Style vectors and features of images, for callers of the networks; arguments as of `rearrange`."""
        return self._source(self.read("features", features), psi, steps)

    def _source(self, given: Sequence[Given], psi: float, steps: int) -> Source:
        """Features of images of seeds and of pictures, in order."""
        styles = torch.cat([self._styles(one, psi, steps) for one in given])
        return self.networks.source(styles)

    def _styles(self, given: Given, psi: float, steps: int) -> Tensor:
        """Style vectors [1, L, w_dim]."""
        generator = self.networks.generator
        if given.seed is not None:
            latent = torch.from_numpy(drawn(given.seed[0], 1, self.config.generator.z_dim, given.seed[1]))
            return generator.styles(generator.map(latent.to(self.device)), psi)
        image = values_of(torch.from_numpy(squares([given], self.config.size[0])).to(self.device)).permute(0, 3, 1, 2)
        with torch.inference_mode(False), torch.enable_grad():
            plain = self.trained(self.device).generator  # rewritten layers have no gradients
            return inverted(plain, image.clone(), steps)

    def _labels(self, given: Sequence[Given], read: str, psi: float, steps: int) -> Tensor:
        """Proxy masks, int64 [N, S, S]."""
        found = []
        for one in given:
            if one.seed is None and read == "proxy":
                found.append(torch.from_numpy(labels_of_picture(one, self.config))[None].to(self.device))
            elif one.seed is None and read != "image":
                with torch.inference_mode():
                    found.append(self._mapped(one, read))
            else:
                with torch.inference_mode():
                    found.append(self.networks.mask(self._source([one], psi, steps)))
        return torch.cat(found)

    def _mapped(self, given: Given, read: str) -> Tensor:
        """The proxy mask that the mapper makes of a condition, int64 [1, S, S]."""
        mapper, side = self.config.mapper, self.config.size[0]
        assert mapper is not None and self.networks.mapper is not None
        if read == "labels":
            classes = torch.from_numpy(classes_of_picture(given, mapper, side))[None].to(self.device)
            condition = one_hot(classes, len(mapper.names))
        else:
            pixels = torch.from_numpy(squares([given], side)).to(self.device)
            picture = values_of(pixels).permute(0, 3, 1, 2)
            condition = lines_of(picture) if read == "sketch" else edges_of(picture)
        labels: Tensor = self.networks.mapper(condition).argmax(1)
        return labels

    def _check_read(self, read: str) -> None:
        kinds = {"proxy": None, "image": None, "labels": "labels", "sketch": "edges", "edges": "edges"}
        if read not in kinds:
            raise TaskError(f"masks are read as {', '.join(kinds)}, not as {read!r}")
        kind, has = kinds[read], "none" if self.config.mapper is None else f"one of {self.config.mapper.kind}"
        if kind is not None and (self.config.mapper is None or self.config.mapper.kind != kind):
            raise TaskError(f"{read} needs a mapper of {kind}, and {self.name} has {has}; read masks as proxy or image")

    def _run_all(self, styles: Tensor, mask: Tensor) -> None:
        """Run two images through every layer."""
        self.networks(styles, mask)
        if self.networks.mapper is not None and self.config.mapper is not None:
            labels = self.config.mapper.kind == "labels"
            shape = (2, len(self.config.mapper.names) if labels else 3, *self.size)
            self.networks.mapper(torch.zeros(shape, device=self.device))

    @staticmethod
    def _repeated(source: Source, rows: Sequence[int], count: int) -> Source:
        """A row of the source for each of `rows`; a single one is repeated."""
        if count > 1:
            return source

        def again(x: Tensor) -> Tensor:
            return x.expand(len(rows), *x.shape[1:])

        features = source.features
        rgb = None if features.rgb is None else again(features.rgb)
        return Source(again(source.styles), Features(again(features.map), rgb, features.after))

    @own_modes()
    def trained(self, device: torch.device = _CPU) -> RearrangerNetworks:
        """The networks as they were trained, read from the file again, with their gains multiplied in."""
        return read_networks(self.header, self.config, device)


def _unique(rows: Sequence[int], count: int) -> Sequence[int]:
    """The rows, or the first alone if all share one source."""
    return rows if count > 1 else rows[:1]
