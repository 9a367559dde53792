"""What is measured: a generator, and the inputs of a batch. Models by name, and networks at the papers' full width."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from zellige.errors import UnknownModelError

from ...engine.layers.norms import MapNorm
from ...engine.library import load_checkpoint
from ...engine.systems.coco_gan.config import CocoGanConfig
from ...engine.systems.coco_gan.generator import Generator
from ...engine.systems.coco_gan.model import CocoGan
from ...engine.systems.onegan.config import OneGanConfig
from ...engine.systems.onegan.networks import OneGanNetworks

__all__ = ["DTYPES", "REFERENCES", "SEED", "Inputs", "Subject", "subject_of"]

Inputs = tuple[Tensor, ...]
NetworkT = TypeVar("NetworkT", bound=nn.Module)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SEED = 0  # of weights and inputs
_ENCODERS = ("child_encoder", "parent_encoder", "background_encoder")


@dataclass(frozen=True)
class Subject:
    """A generator whose call takes a batch of inputs to images [N, 3, R, R] in [-1, 1].

    Attributes:
        name: a model's name or path, or that of a reference network.
        system: its system.
        network: in float32, in evaluation, channels-last, on the device.
        device: where everything runs.
        inputs: makes those of a batch, the same at every call.
    """

    name: str
    system: str
    network: nn.Module
    device: torch.device
    inputs: Callable[[int], Inputs]

    def at(self, precision: str) -> nn.Module:
        """A copy of the network whose maps are in this precision; codes, conditions and images are float32."""
        network = copy.deepcopy(self.network)
        for part in network.modules():
            if isinstance(part, nn.Conv2d | MapNorm):
                part.to(DTYPES[precision])
        return _Images(network)


class _Images(nn.Module):
    """A network whose images leave it in float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor:
        y: Tensor = self.network(*inputs).float()
        return y


def subject_of(model: str, device: torch.device) -> Subject:
    """The generator of a bundled name, of a checkpoint's path, or of a reference network.

    Raises:
        UnknownModelError: there is none of this name; lists the reference networks.
        CheckpointError: the file is damaged or not ours.
    """
    if model in REFERENCES:
        return REFERENCES[model](model, device)
    try:
        loaded = load_checkpoint(model, str(device), "fp32", rewrite=False)
    except UnknownModelError as error:
        raise UnknownModelError(f"{error}; or a reference network: {', '.join(REFERENCES)}") from None
    if isinstance(loaded, CocoGan):
        return _coco_gan(model, loaded.generator, device)
    with torch.device("meta"):
        networks = OneGanNetworks(loaded.config)  # without what the engine has added for inference
    networks.load_state_dict(loaded.networks.state_dict(), assign=True)
    return _onegan(model, networks, device)


def _onegan(name: str, networks: OneGanNetworks, device: torch.device) -> Subject:
    for encoder in _ENCODERS:  # generation needs none, and its memory would be counted
        setattr(networks, encoder, nn.Identity())

    def inputs(batch: int) -> Inputs:
        drawn = networks.draw(batch, torch.Generator().manual_seed(SEED))
        return tuple(part.to(device) for part in drawn)

    return Subject(name, "onegan", _ready(networks, device), device, inputs)


def _coco_gan(name: str, generator: Generator, device: torch.device) -> Subject:
    config = generator.config

    def inputs(batch: int) -> Inputs:
        random = torch.Generator().manual_seed(SEED)
        latents = torch.rand(batch, config.latent, generator=random) * 2 - 1
        axes = config.rows, config.columns
        chosen = (torch.randint(patches, (batch,), generator=random).numpy() for patches in axes)
        places = torch.from_numpy(config.lattice.micro(*chosen)).float()
        return latents.to(device), places.to(device)

    return Subject(name, "coco-gan", _ready(generator, device), device, inputs)


def _ready(network: nn.Module, device: torch.device) -> nn.Module:
    network = network.eval().requires_grad_(False).to(device)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _reference_onegan(name: str, device: torch.device) -> Subject:
    with torch.device("meta"):  # orthogonal matrices of this size would take most of a minute
        networks = OneGanNetworks(OneGanConfig())
    for encoder in _ENCODERS:
        setattr(networks, encoder, nn.Identity())
    return _onegan(name, _drawn(networks.to_empty(device="cpu")), device)


def _reference_coco_gan(name: str, device: torch.device) -> Subject:
    return _coco_gan(name, _drawn(Generator(CocoGanConfig(patch=64), spectral=False)), device)


def _drawn(network: NetworkT) -> NetworkT:
    """Random weights under the seed; scales and shifts too, since those of a new network would hide their loss."""
    random = torch.Generator().manual_seed(SEED)
    for name, weight in network.named_parameters():
        if weight.dim() > 1:
            nn.init.normal_(weight, std=weight[0].numel() ** -0.5, generator=random)
        else:
            nn.init.normal_(weight, float(name.endswith("weight")), 0.1, generator=random)
    for name, statistics in network.named_buffers():
        if name.endswith("running_mean"):
            nn.init.normal_(statistics, std=0.1, generator=random)
        elif name.endswith("running_var"):
            nn.init.uniform_(statistics, 0.5, 1.5, generator=random)
    return network


REFERENCES: dict[str, Callable[[str, torch.device], Subject]] = {
    "onegan-128": _reference_onegan,
    "coco-gan-256": _reference_coco_gan,
}
