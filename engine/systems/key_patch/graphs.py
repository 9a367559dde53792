"""What of a key-patch model is exported: an image of patches, with mask and composite or alone."""

import torch
from torch import Tensor

from zellige.errors import TaskError

from ....kernels.op.levels import bytes_of, values_of
from ..graph import Compute, Graph, Output, finished, finished_mask
from .config import KeyPatchConfig
from .networks import Composition, KeyPatchNetworks

__all__ = ["GRAPHS"]


def _composed(networks: KeyPatchNetworks, patches: Tensor, counts: Tensor, *z: Tensor) -> Composition:
    """Of patches as bytes [N, K, R, R, 3], how often each counts [N, K], and z where there is one."""
    made: Composition = networks(values_of(patches).permute(0, 1, 4, 2, 3), counts, *z)
    return made


def _compose(config: KeyPatchConfig, output: Output) -> Compute:
    if not config.has_mask:
        raise TaskError("the model has no mask decoder, so that nothing composes by a mask; export its graph picture")

    def compute(networks: KeyPatchNetworks, *given: Tensor) -> tuple[Tensor, ...]:
        made = _composed(networks, *given)
        assert made.mask is not None
        image = finished(made.image, output)
        # Levels are multiplied, so that nothing is black outside of the mask.
        shown = finished((made.image + 1) * made.mask - 1, output)
        return image, finished_mask(made.mask, output), shown

    return compute


def _picture(config: KeyPatchConfig, output: Output) -> Compute:
    def compute(networks: KeyPatchNetworks, *given: Tensor) -> tuple[Tensor, ...]:
        return (finished(_composed(networks, *given).image, output),)

    return compute


def _example(config: KeyPatchConfig, count: int) -> dict[str, Tensor]:
    """Noise of every scale, as many patches as in training, each counted once or twice."""
    random = torch.Generator().manual_seed(0)
    number, side = count * config.patches, config.resolution
    fields = [torch.randn(number, 3, n, n, generator=random) for n in (4, 16, side)]
    field = torch.stack([torch.nn.functional.interpolate(t, (side, side), mode="bilinear") for t in fields]).sum(0)
    patches = bytes_of((field / 2).permute(0, 2, 3, 1)).unflatten(0, (count, config.patches)).contiguous()
    counts = torch.randint(1, 3, (count, config.patches), generator=random).float()
    given = {"patches": patches, "counts": counts}
    if config.z_dim:
        given["z"] = torch.rand(count, config.z_dim, generator=random) * 2 - 1
    return given


GRAPHS = {
    "compose": Graph(_compose, _example, ("image", "mask", "composite")),
    "picture": Graph(_picture, _example, ("image",)),
}
