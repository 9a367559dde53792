"""The tasks of each system as networks with named inputs and outputs, numerics before and after them included."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zellige.errors import TaskError

from ..engine.device import DTYPES
from ..engine.layers.norms import MapNorm
from ..engine.rewrite.for_onnx import rewrite_for_graphs
from ..engine.systems.coco_gan.generator import Generator
from ..engine.systems.coco_gan.model import CocoGan
from ..engine.systems.onegan.config import OneGanConfig
from ..engine.systems.onegan.model import OneGan
from ..engine.systems.onegan.networks import Encoding, OneGanNetworks
from ..kernels.op.levels import bytes_of

__all__ = ["OUTPUTS", "TASKS", "Output", "TaskNetwork", "task_network"]

Output = Literal["image", "float"]
OUTPUTS = ("image", "float")

Compute = Callable[..., tuple[Tensor, ...]]
Example = Callable[[int], dict[str, Tensor]]

_ONEGAN = ("generate", "like", "reconstruct", "segment", "cluster", "translate", "inpaint", "recompose")
TASKS = {"coco-gan": ("generate", "patches"), "onegan": _ONEGAN}


@dataclass(frozen=True)
class TaskNetwork:
    """A task ready to be exported.

    Attributes:
        system, task: their names.
        module: from the inputs, in their order, to a tuple of the outputs; on a CPU, in evaluation, rewritten.
        trained: the same in float32, as it was trained: what an exported file is held against.
        example: inputs of a batch by name, those of a number of rows; the same at every call.
        outputs: names.
    """

    system: str
    task: str
    module: nn.Module
    trained: nn.Module
    example: Example
    outputs: tuple[str, ...]


def task_network(model: CocoGan | OneGan, task: str, output: Output, precision: str) -> TaskNetwork:
    """A task of a loaded model, with weights of its own.

    Args:
        model: loaded in float32.
        task: one of TASKS of its system.
        output: "image" ends in bytes, [N, H, W, 3], and masks [N, H, W]; "float" in float32, [N, 3, H, W] in [-1, 1],
            and masks [N, 1, H, W] in [0, 1].
        precision: of convolutions and of the norms behind them; inputs and outputs are the same in all.
    Raises:
        TaskError: its system has no such task; names those that it has.
    """
    if task not in TASKS[model.system]:
        known = ", ".join(TASKS[model.system])
        raise TaskError(f"{model.name} is a {model.system} model, whose tasks for export are {known}; {task!r} is none")
    network = model.trained()
    compute, example, outputs = (
        _coco_gan(model, task, output) if isinstance(model, CocoGan) else _onegan(model.config, task, output)
    )
    trained = _Task(copy.deepcopy(network), compute)
    for part in network.modules():
        if isinstance(part, nn.Conv2d | MapNorm):
            part.to(DTYPES[precision])
    rewrite_for_graphs(network)
    return TaskNetwork(model.system, task, _Task(network, compute), trained, example, outputs)


class _Task(nn.Module):
    """A function of a network and its inputs."""

    def __init__(self, network: nn.Module, compute: Compute) -> None:
        super().__init__()
        self.network, self.compute = network, compute

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self.compute(self.network, *inputs)


def _coco_gan(model: CocoGan, task: str, output: Output) -> tuple[Compute, Example, tuple[str, ...]]:
    config = model.config
    block = model.still_block if task == "generate" else (1, 1)
    rows, columns = (axis.patches for axis in config.lattice.axes)
    down, across = rows // block[0], columns // block[1]
    first = torch.cartesian_prod(torch.arange(down) * block[0], torch.arange(across) * block[1]).double().numpy()
    places = torch.from_numpy(config.lattice.micro(first[:, 0], first[:, 1])).float()

    def generate(network: Generator, latent: Tensor) -> tuple[Tensor, ...]:
        count = latent.shape[0]
        latents = latent[:, None].expand(-1, len(places), -1).flatten(0, 1)
        made = network(latents, places[None].expand(count, -1, -1).flatten(0, 1), block)
        picture = made.unflatten(0, (count, down, across)).permute(0, 3, 1, 4, 2, 5)  # [N, 3, down, P, across, P]
        return (_finished(picture.flatten(4, 5).flatten(2, 3), output),)

    def patches(network: Generator, latent: Tensor, coordinates: Tensor) -> tuple[Tensor, ...]:
        return (_finished(network(latent, coordinates, block), output),)

    def example(count: int) -> dict[str, Tensor]:
        random = torch.Generator().manual_seed(0)
        latent = torch.rand(count, config.latent, generator=random) * 2 - 1
        some = places[torch.randint(len(places), (count,), generator=random)]
        return {"latent": latent} if task == "generate" else {"latent": latent, "coordinates": some}

    return (generate, example, ("images",)) if task == "generate" else (patches, example, ("patches",))


def _onegan(config: OneGanConfig, task: str, output: Output) -> tuple[Compute, Example, tuple[str, ...]]:
    compute, names, outputs = _ONEGAN_TASKS[task]

    def example(count: int) -> dict[str, Tensor]:
        random = torch.Generator().manual_seed(0)

        def classes(number: int) -> Tensor:
            return torch.randint(number, (count,), generator=random)

        def images() -> Tensor:
            # Noise of every scale, which encoders answer as variously as pictures.
            shape = (count, 3, config.resolution, config.resolution)
            fields = [torch.randn(count, 3, side, side, generator=random) for side in (4, 16, config.resolution)]
            field = sum(nn.functional.interpolate(t, shape[2:], mode="bilinear") for t in fields)
            assert isinstance(field, Tensor)
            return bytes_of((field / 2).permute(0, 2, 3, 1)).contiguous()

        makers = {
            "child": lambda: classes(config.children),
            "parent": lambda: classes(config.parents),
            "background": lambda: classes(config.backgrounds),
            "latent": lambda: torch.randn(count, config.latent, generator=random),
        }
        return {name: makers.get(name, images)() for name in names}

    def run(network: OneGanNetworks, *inputs: Tensor) -> tuple[Tensor, ...]:
        return compute(network, output, **dict(zip(names, inputs, strict=True)))

    return run, example, outputs


def _generate(
    networks: OneGanNetworks, output: Output, child: Tensor, parent: Tensor, latent: Tensor, background: Tensor
) -> tuple[Tensor, ...]:
    images = networks(child, parent, latent, background, output="uint8" if output == "image" else "float")
    return (images if output == "image" else images.float(),)


def _like(networks: OneGanNetworks, output: Output, images: Tensor, latent: Tensor) -> tuple[Tensor, ...]:
    encoding = networks.encode(_entering(images))
    child, parent = encoding.child_logits.argmax(1), encoding.parent_logits.argmax(1)
    background = parent if networks.config.background_classes == "parent" else child
    return _generate(networks, output, child, parent, latent, background)


def _reconstruct(networks: OneGanNetworks, output: Output, images: Tensor) -> tuple[Tensor, ...]:
    scene = networks.reconstruct(_entering(images))
    pictures = (_finished(part, output) for part in (scene.image, scene.foreground, scene.background))
    return *pictures, _mask(scene.mask, output)


def _segment(networks: OneGanNetworks, output: Output, images: Tensor) -> tuple[Tensor, ...]:
    return (_mask(_seen(networks, _entering(images))[1], output),)


def _cluster(networks: OneGanNetworks, output: Output, images: Tensor) -> tuple[Tensor, ...]:
    encoding = networks.encode(_entering(images))
    return encoding.child_probabilities, encoding.parent_probabilities


def _translate(networks: OneGanNetworks, output: Output, images: Tensor, child: Tensor) -> tuple[Tensor, ...]:
    x = _entering(images)
    encoding, mask = _seen(networks, x)
    codes = replace(networks.codes_of(encoding), child=networks.child_vectors(child))
    return (_finished(networks.decode(x, encoding, codes, mask=mask).image, output),)


def _inpaint(networks: OneGanNetworks, output: Output, images: Tensor) -> tuple[Tensor, ...]:
    return (_finished(networks.reconstruct(_entering(images)).background, output),)


def _recompose(networks: OneGanNetworks, output: Output, backgrounds: Tensor, objects: Tensor) -> tuple[Tensor, ...]:
    place = _entering(backgrounds)
    mask = _seen(networks, place)[1]
    encoding = networks.encode(_entering(objects))
    scene = networks.decode(place, encoding, networks.codes_of(encoding), mask=mask)
    return (_finished(scene.image, output),)


_ONEGAN_TASKS: Mapping[str, tuple[Callable[..., Any], tuple[str, ...], tuple[str, ...]]] = {
    "generate": (_generate, ("child", "parent", "latent", "background"), ("images",)),
    "like": (_like, ("images", "latent"), ("made",)),
    "reconstruct": (_reconstruct, ("images",), ("image", "foreground", "whole_background", "mask")),
    "segment": (_segment, ("images",), ("masks",)),
    "cluster": (_cluster, ("images",), ("child_probabilities", "parent_probabilities")),
    "translate": (_translate, ("images", "child"), ("made",)),
    "inpaint": (_inpaint, ("images",), ("whole_background",)),
    "recompose": (_recompose, ("backgrounds", "objects"), ("made",)),
}


def _seen(networks: OneGanNetworks, images: Tensor) -> tuple[Encoding, Tensor]:
    """What was read off images, and their masks [N, 1, R, R]."""
    encoding = networks.encode(images)
    codes = networks.codes_of(encoding)
    mask = networks.foreground(encoding.bypass, codes.parent, codes.child)[1]
    return encoding, mask.float().sigmoid()


def _entering(images: Tensor) -> Tensor:
    """Bytes [N, R, R, 3] to float32 [N, 3, R, R] in [-1, 1]."""
    return images.float().permute(0, 3, 1, 2).div(127.5).sub(1)  # TensorRT moves no bytes


def _finished(images: Tensor, output: Output) -> Tensor:
    """[N, 3, H, W] to float32, or to bytes [N, H, W, 3]."""
    images = images.float()
    return bytes_of(images.permute(0, 2, 3, 1)) if output == "image" else images


def _mask(mask: Tensor, output: Output) -> Tensor:
    """[N, 1, R, R] in [0, 1] as it is, or to bytes [N, R, R], round(255 mask)."""
    return mask.squeeze(1).mul(255).round().to(torch.uint8) if output == "image" else mask
