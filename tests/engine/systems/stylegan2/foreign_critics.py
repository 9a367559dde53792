"""Discriminators of other programs, built from their layouts' rules, and their logits by the paper's arithmetic."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .foreign_layouts import SIDES, WIDTHS
from .textbook import FIR, Draw, State, active, dense, filtered


@dataclass(frozen=True)
class Critic:
    """A layout's discriminators.

    Attributes:
        weight: the key of a layer's weight; layers are "rgb", "conv16", "down16", "skip16", ..., "conv4", "fc", "out".
        bias: likewise.
        filters: keys of the low-pass filters.
        kept: a tensor [K, C, R, R] or [K, C] as the layout keeps it, and back.
    """

    weight: Callable[[str], str]
    bias: Callable[[str], str]
    filters: dict[str, tuple[int, ...]]
    kept: Callable[[Tensor], Tensor] = lambda tensor: tensor
    back: Callable[[Tensor], Tensor] = lambda tensor: tensor

    def make(self, seed: int) -> State:
        draw, state = Draw(seed), State()
        for layer, shape in shapes().items():
            state[self.weight(layer)] = self.kept(draw(*shape))
            if not layer.startswith("skip"):
                state[self.bias(layer)] = draw(shape[0])
        return state | {key: FIR.reshape(shape).clone() for key, shape in self.filters.items()}

    def logits(self, state: State, images: Tensor) -> Tensor:
        """Logits of at most four images, which are one group."""

        def conv(layer: str, x: Tensor, **how: int) -> Tensor:
            weight = self.back(state[self.weight(layer)])
            y = F.conv2d(x, weight / math.sqrt(weight[0].numel()), **how)
            return y if layer.startswith("skip") else active(y + state[self.bias(layer)][:, None, None])

        x = conv("rgb", images)
        for side in reversed(SIDES[1:]):
            y = conv(f"conv{side}", x, padding=1)
            y = conv(f"down{side}", filtered(y, FIR, 2, 2), stride=2)
            x = (y + conv(f"skip{side}", filtered(x, FIR, 1, 1), stride=2)) / math.sqrt(2)
        spread = ((x - x.mean(0)).square().mean(0) + 1e-8).sqrt().mean()
        x = conv("conv4", torch.cat([x, spread.expand(len(x), 1, 4, 4)], 1), padding=1)
        rows = [(self.back(state[self.weight(layer)]), state[self.bias(layer)]) for layer in ("fc", "out")]
        return dense(active(dense(x.flatten(1), *rows[0])), *rows[1])[:, 0]


def shapes() -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"rgb": (WIDTHS[-1], 3, 1, 1)}
    for side, outputs, inputs in zip(SIDES[1:], WIDTHS, WIDTHS[1:], strict=False):
        found |= {f"conv{side}": (inputs, inputs, 3, 3), f"down{side}": (outputs, inputs, 3, 3)}
        found[f"skip{side}"] = (outputs, inputs, 1, 1)
    first = WIDTHS[0]
    return found | {"conv4": (first, first + 1, 3, 3), "fc": (first, 16 * first), "out": (1, first)}


def table(names: dict[str, str], ending: str) -> Callable[[str], str]:
    return lambda layer: names[layer] + ending


_NVIDIA = {
    "rgb": "b16.fromrgb", "conv16": "b16.conv0", "down16": "b16.conv1", "skip16": "b16.skip", "conv8": "b8.conv0",
    "down8": "b8.conv1", "skip8": "b8.skip", "conv4": "b4.conv", "fc": "b4.fc", "out": "b4.out",
}  # fmt: skip
_FILTERED = (
    "b16.",
    "b16.fromrgb.",
    "b16.conv0.",
    "b16.conv1.",
    "b16.skip.",
    "b8.",
    "b8.conv0.",
    "b8.conv1.",
    "b8.skip.",
    "b4.conv.",
)
_ROSINALITY = {
    "rgb": ("convs.0.0.weight", "convs.0.1.bias"),
    "conv16": ("convs.1.conv1.0.weight", "convs.1.conv1.1.bias"),
    "down16": ("convs.1.conv2.1.weight", "convs.1.conv2.2.bias"),
    "skip16": ("convs.1.skip.1.weight", ""),
    "conv8": ("convs.2.conv1.0.weight", "convs.2.conv1.1.bias"),
    "down8": ("convs.2.conv2.1.weight", "convs.2.conv2.2.bias"),
    "skip8": ("convs.2.skip.1.weight", ""),
    "conv4": ("final_conv.0.weight", "final_conv.1.bias"),
    "fc": ("final_linear.0.weight", "final_linear.0.bias"),
    "out": ("final_linear.1.weight", "final_linear.1.bias"),
}
_GENFORCE = {
    "rgb": "input0", "conv16": "layer0", "down16": "layer1", "skip16": "skip_layer0", "conv8": "layer2",
    "down8": "layer3", "skip8": "skip_layer1", "conv4": "layer4", "fc": "layer5", "out": "layer6",
}  # fmt: skip
_TENSORFLOW = {
    "rgb": "16x16/FromRGB", "conv16": "16x16/Conv0", "down16": "16x16/Conv1_down", "skip16": "16x16/Skip",
    "conv8": "8x8/Conv0", "down8": "8x8/Conv1_down", "skip8": "8x8/Skip", "conv4": "4x4/Conv", "fc": "4x4/Dense0",
    "out": "Output",
}  # fmt: skip
CRITICS = {
    "rosinality": Critic(
        lambda layer: _ROSINALITY[layer][0],
        lambda layer: _ROSINALITY[layer][1],
        {f"convs.{k}.{part}.0.kernel": (4, 4) for k in (1, 2) for part in ("conv2", "skip")},
    ),
    "NVIDIA": Critic(
        table(_NVIDIA, ".weight"), table(_NVIDIA, ".bias"), {f"{place}resample_filter": (4, 4) for place in _FILTERED}
    ),
    "genforce": Critic(
        table(_GENFORCE, ".weight"),
        table(_GENFORCE, ".bias"),
        {f"{place}.filter.kernel": (1, 1, 4, 4) for place in ("layer1", "layer3", "skip_layer0", "skip_layer1")},
    ),
    "TensorFlow": Critic(
        table(_TENSORFLOW, "/weight"),
        table(_TENSORFLOW, "/bias"),
        {},
        lambda tensor: tensor.permute(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T,
        lambda tensor: tensor.permute(3, 2, 0, 1) if tensor.ndim == 4 else tensor.T,
    ),
}
