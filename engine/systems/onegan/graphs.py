"""The graphs of a OneGAN: one for every task."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from ....kernels.op.levels import bytes_of
from ..graph import Compute, Graph, Output, entering, finished, finished_mask
from .config import OneGanConfig
from .networks import Encoding, OneGanNetworks

__all__ = ["GRAPHS"]

ENCODERS = ("child_encoder", "parent_encoder", "background_encoder")
GENERATION = ("child", "parent", "latent", "background")


def _generate(
    networks: OneGanNetworks, output: Output, child: Tensor, parent: Tensor, latent: Tensor, background: Tensor
) -> tuple[Tensor, ...]:
    images = networks(child, parent, latent, background, output="uint8" if output == "image" else "float")
    return (images if output == "image" else images.float(),)


def _like(networks: OneGanNetworks, output: Output, images: Tensor, latent: Tensor) -> tuple[Tensor, ...]:
    encoding = networks.encode(entering(images))
    child, parent = encoding.child_logits.argmax(1), encoding.parent_logits.argmax(1)
    background = parent if networks.config.background_classes == "parent" else child
    return _generate(networks, output, child, parent, latent, background)


def _reconstruct(networks: OneGanNetworks, output: Output, images: Tensor) -> tuple[Tensor, ...]:
    composite = networks.reconstruct(entering(images))
    pictures = (finished(part, output) for part in (composite.image, composite.foreground, composite.background))
    return *pictures, finished_mask(composite.mask, output)


def _segment(networks: OneGanNetworks, output: Output, images: Tensor) -> tuple[Tensor, ...]:
    return (finished_mask(_seen(networks, entering(images))[1], output),)


def _cluster(networks: OneGanNetworks, output: Output, images: Tensor) -> tuple[Tensor, ...]:
    encoding = networks.encode(entering(images))
    return encoding.child_probabilities, encoding.parent_probabilities


def _translate(networks: OneGanNetworks, output: Output, images: Tensor, child: Tensor) -> tuple[Tensor, ...]:
    x = entering(images)
    encoding, mask = _seen(networks, x)
    codes = replace(networks.codes_of(encoding), child=networks.child_vectors(child))
    return (finished(networks.decode(x, encoding, codes, mask=mask).image, output),)


def _inpaint(networks: OneGanNetworks, output: Output, images: Tensor) -> tuple[Tensor, ...]:
    return (finished(networks.reconstruct(entering(images)).background, output),)


def _recompose(networks: OneGanNetworks, output: Output, images: Tensor, background: Tensor) -> tuple[Tensor, ...]:
    place = entering(background)
    mask = _seen(networks, place)[1]
    encoding = networks.encode(entering(images))
    composite = networks.decode(place, encoding, networks.codes_of(encoding), mask=mask)
    return (finished(composite.image, output),)


def _seen(networks: OneGanNetworks, images: Tensor) -> tuple[Encoding, Tensor]:
    """The encoding of images, and their masks [N, 1, R, R]."""
    encoding = networks.encode(images)
    codes = networks.codes_of(encoding)
    mask = networks.foreground(encoding.bypass, codes.parent, codes.child)[1]
    return encoding, mask.float().sigmoid()


def _graph(
    task: Callable[..., tuple[Tensor, ...]], inputs: tuple[str, ...], outputs: tuple[str, ...],
    unused: tuple[str, ...] = (),
) -> Graph:  # fmt: skip
    def compute(config: OneGanConfig, output: Output) -> Compute:
        return lambda networks, *given: task(networks, output, *given)

    def example(config: OneGanConfig, count: int) -> dict[str, Tensor]:
        random = torch.Generator().manual_seed(0)
        classes = {"child": config.children, "parent": config.parents}
        if "latent" in inputs and "child" in inputs:  # in other tasks "background" is an image
            classes["background"] = config.backgrounds

        def drawn(name: str) -> Tensor:
            if name in classes:
                return torch.randint(classes[name], (count,), generator=random)
            if name == "latent":
                return torch.randn(count, config.latent, generator=random)
            return _pictures(count, config.resolution, random)

        return {name: drawn(name) for name in inputs}

    return Graph(compute, example, outputs, unused)


def _pictures(count: int, side: int, random: torch.Generator) -> Tensor:
    """Noise of several scales, uint8 [count, side, side, 3], because encoders tell such images apart like pictures."""
    fields = [torch.randn(count, 3, n, n, generator=random) for n in (4, 16, side)]
    field = sum(nn.functional.interpolate(t, (side, side), mode="bilinear") for t in fields)
    assert isinstance(field, Tensor)
    return bytes_of((field / 2).permute(0, 2, 3, 1)).contiguous()


GRAPHS = {
    "generate": _graph(_generate, GENERATION, ("images",), ENCODERS),
    "like": _graph(_like, ("images", "latent"), ("made",), ("background_encoder",)),
    "reconstruct": _graph(_reconstruct, ("images",), ("image", "foreground", "whole_background", "mask")),
    "segment": _graph(_segment, ("images",), ("masks",), ("background", "background_encoder")),
    "cluster": _graph(
        _cluster,
        ("images",),
        ("child_probabilities", "parent_probabilities"),
        ("foreground", "background", "background_encoder"),
    ),
    "translate": _graph(_translate, ("images", "child"), ("made",)),
    "inpaint": _graph(_inpaint, ("images",), ("whole_background",)),
    "recompose": _graph(_recompose, ("images", "background"), ("made",)),
}
