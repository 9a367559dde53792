"""State dicts of other programs, built from their layouts' rules, and their pictures, computed by these rules alone.

Nothing here is taken from the converter. Networks have 16 pixels and widths that all differ. z and w have one length,
because rosinality's have.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from .textbook import (
    FIR,
    Draw,
    State,
    active,
    coloured,
    dense,
    filtered,
    modulated,
    same,
    spread,
    transposed,
    unit,
)

WIDTHS, LENGTH, DEPTH = (6, 5, 4), 7, 3
SIDES = (4, 8, 16)


def mapped(state: State, name: str, z: Tensor) -> Tensor:
    w = unit(z)
    for number in range(DEPTH):
        place = name.format(number, number + 1)
        w = active(dense(w, state[f"{place}.weight"], state[f"{place}.bias"], 0.01))
    return w


# rosinality.


def rosinality(seed: int) -> State:
    """A generator, without the mean, which lies beside it."""
    draw, state = Draw(seed), State()
    for number in range(1, DEPTH + 1):
        state[f"style.{number}.weight"] = draw(LENGTH, LENGTH, std=100)
        state[f"style.{number}.bias"] = draw(LENGTH, std=50)
    state["input.input"] = draw(1, WIDTHS[0], 4, 4)

    def layer(place: str, outputs: int, inputs: int, side: int) -> None:
        state[f"{place}.conv.weight"] = draw(1, outputs, inputs, side, side)
        state[f"{place}.conv.modulation.weight"] = draw(inputs, LENGTH)
        state[f"{place}.conv.modulation.bias"] = draw(inputs, mean=1)
        if side == 1:
            state[f"{place}.bias"] = draw(1, 3, 1, 1)
        else:
            state[f"{place}.noise.weight"] = draw(1)
            state[f"{place}.activate.bias"] = draw(outputs)

    layer("conv1", WIDTHS[0], WIDTHS[0], 3)
    layer("to_rgb1", 3, WIDTHS[0], 1)
    for k, (inputs, outputs) in enumerate(pairwise(WIDTHS)):
        layer(f"convs.{2 * k}", outputs, inputs, 3)
        state[f"convs.{2 * k}.conv.blur.kernel"] = FIR * 4
        layer(f"convs.{2 * k + 1}", outputs, outputs, 3)
        layer(f"to_rgbs.{k}", 3, outputs, 1)
        state[f"to_rgbs.{k}.upsample.kernel"] = FIR * 4
    for i in range(2 * len(WIDTHS) - 1):
        side = 2 ** ((i + 5) // 2)
        state[f"noises.noise_{i}"] = draw(1, 1, side, side)
    return state


def rosinality_picture(state: State, z: Tensor) -> Tensor:
    w = mapped(state, "style.{1}", z)

    def style(place: str) -> Tensor:
        return dense(w, state[f"{place}.conv.modulation.weight"], state[f"{place}.conv.modulation.bias"])

    def conv(x: Tensor, place: str, noise: int) -> Tensor:
        weight = state[f"{place}.conv.weight"][0] / math.sqrt(9 * x.shape[1])
        kernel = state.get(f"{place}.conv.blur.kernel")
        y = modulated(x, weight, style(place), same if kernel is None else transposed, 1e-8)
        y = y if kernel is None else filtered(y, kernel, 1, 1)
        y = y + state[f"{place}.noise.weight"] * state[f"noises.noise_{noise}"]
        return active(y + state[f"{place}.activate.bias"][:, None, None])

    def rgb(x: Tensor, place: str) -> Tensor:
        return coloured(x, state[f"{place}.conv.weight"][0, :, :, 0, 0], style(place), state[f"{place}.bias"].flatten())

    x = conv(state["input.input"].expand(len(z), -1, -1, -1), "conv1", 0)
    image = rgb(x, "to_rgb1")
    for k in range(len(WIDTHS) - 1):
        x = conv(conv(x, f"convs.{2 * k}", 2 * k + 1), f"convs.{2 * k + 1}", 2 * k + 2)
        image = filtered(spread(image), state[f"to_rgbs.{k}.upsample.kernel"], 2, 1) + rgb(x, f"to_rgbs.{k}")
    return image


# NVIDIA's PyTorch code.


def nvidia(seed: int) -> State:
    draw, state = Draw(seed), State()
    for number in range(DEPTH):
        state[f"mapping.fc{number}.weight"] = draw(LENGTH, LENGTH, std=100)
        state[f"mapping.fc{number}.bias"] = draw(LENGTH, std=50)
    state["mapping.w_avg"] = draw(LENGTH)
    state["synthesis.b4.const"] = draw(WIDTHS[0], 4, 4)
    for side, inputs, outputs in zip(SIDES, (WIDTHS[0], *WIDTHS), WIDTHS, strict=False):
        block = f"synthesis.b{side}"
        state[f"{block}.resample_filter"] = FIR.clone()
        convs = {"conv1": outputs} if side == 4 else {"conv0": inputs, "conv1": outputs}
        for name, taken in (convs | {"torgb": outputs}).items():
            made, kernel = (3, 1) if name == "torgb" else (outputs, 3)
            state[f"{block}.{name}.weight"] = draw(made, taken, kernel, kernel)
            state[f"{block}.{name}.bias"] = draw(made)
            state[f"{block}.{name}.affine.weight"] = draw(taken, LENGTH)
            state[f"{block}.{name}.affine.bias"] = draw(taken, mean=1)
        for name in convs:
            state[f"{block}.{name}.noise_strength"] = draw(1)[0]
            state[f"{block}.{name}.noise_const"] = draw(side, side)
            state[f"{block}.{name}.resample_filter"] = FIR.clone()
    return state


def nvidia_picture(state: State, z: Tensor, clamp: float = math.inf) -> Tensor:
    w = mapped(state, "mapping.fc{0}", z)

    def style(place: str) -> Tensor:
        return dense(w, state[f"{place}.affine.weight"], state[f"{place}.affine.bias"])

    def conv(x: Tensor, place: str, up: bool) -> Tensor:
        y = modulated(x, state[f"{place}.weight"], style(place), transposed if up else same, 1e-8)  # no gain
        y = filtered(y, state[f"{place}.resample_filter"] * 4, 1, 1) if up else y
        y = y + state[f"{place}.noise_const"] * state[f"{place}.noise_strength"]
        return active(y + state[f"{place}.bias"][:, None, None]).clamp(-clamp, clamp)

    def rgb(x: Tensor, place: str) -> Tensor:
        return coloured(x, state[f"{place}.weight"][:, :, 0, 0], style(place), state[f"{place}.bias"]).clamp(
            -clamp, clamp
        )

    x = conv(state["synthesis.b4.const"].expand(len(z), -1, -1, -1), "synthesis.b4.conv1", False)
    image = rgb(x, "synthesis.b4.torgb")
    for side in SIDES[1:]:
        block = f"synthesis.b{side}"
        x = conv(conv(x, f"{block}.conv0", True), f"{block}.conv1", False)
        image = filtered(spread(image), state[f"{block}.resample_filter"] * 4, 2, 1) + rgb(x, f"{block}.torgb")
    return image


# genforce.


def genforce(seed: int) -> State:
    draw, state = Draw(seed), State()
    for number in range(DEPTH):
        state[f"mapping.dense{number}.weight"] = draw(LENGTH, LENGTH, std=100)
        state[f"mapping.dense{number}.bias"] = draw(LENGTH, std=50)
    state["truncation.w_avg"] = draw(LENGTH)
    state["synthesis.early_layer.const"] = draw(1, WIDTHS[0], 4, 4)
    for j in range(2 * len(WIDTHS) - 1):
        block = (j + 1) // 2
        inputs, outputs = WIDTHS[j // 2], WIDTHS[block]
        state[f"synthesis.layer{j}.weight"] = draw(outputs, inputs, 3, 3)
        state[f"synthesis.layer{j}.bias"] = draw(outputs)
        state[f"synthesis.layer{j}.style.weight"] = draw(inputs, LENGTH)
        state[f"synthesis.layer{j}.style.bias"] = draw(inputs)
        state[f"synthesis.layer{j}.noise_strength"] = draw(1)[0]
        state[f"synthesis.layer{j}.noise"] = draw(1, 1, SIDES[block], SIDES[block])
        if j % 2:
            state[f"synthesis.layer{j}.filter.kernel"] = FIR[None, None] * 4
    for k, width in enumerate(WIDTHS):
        state[f"synthesis.output{k}.weight"] = draw(3, width, 1, 1)
        state[f"synthesis.output{k}.bias"] = draw(3)
        state[f"synthesis.output{k}.style.weight"] = draw(width, LENGTH)
        state[f"synthesis.output{k}.style.bias"] = draw(width)
    state["synthesis.upsample.kernel"] = FIR[None, None] * 4
    return state


def genforce_picture(state: State, z: Tensor) -> Tensor:
    w = mapped(state, "mapping.dense{0}", z)

    def style(place: str) -> Tensor:
        return dense(w, state[f"{place}.style.weight"], state[f"{place}.style.bias"]) + 1

    def conv(x: Tensor, j: int) -> Tensor:
        place = f"synthesis.layer{j}"
        weight, up = state[f"{place}.weight"] / math.sqrt(9 * x.shape[1]), bool(j % 2)
        weight = weight.flip(2, 3) if up else weight
        y = modulated(x, weight, style(place), transposed if up else same, 1e-8)
        y = filtered(y, state[f"{place}.filter.kernel"][0, 0], 1, 1) if up else y
        y = y + state[f"{place}.noise"] * state[f"{place}.noise_strength"]
        return active(y + state[f"{place}.bias"][:, None, None])

    def rgb(x: Tensor, k: int) -> Tensor:
        place = f"synthesis.output{k}"
        return coloured(x, state[f"{place}.weight"][:, :, 0, 0], style(place), state[f"{place}.bias"])

    x = conv(state["synthesis.early_layer.const"].expand(len(z), -1, -1, -1), 0)
    image = rgb(x, 0)
    for k in range(1, len(WIDTHS)):
        x = conv(conv(x, 2 * k - 1), 2 * k)
        image = filtered(spread(image), state["synthesis.upsample.kernel"][0, 0], 2, 1) + rgb(x, k)
    return image


# NVIDIA's TensorFlow code.


def tensorflow(seed: int) -> State:
    draw, state = Draw(seed), State()
    state["lod"] = torch.zeros(())
    state["dlatent_avg"] = draw(LENGTH)
    for number in range(DEPTH):
        state[f"mapping/Dense{number}/weight"] = draw(LENGTH, LENGTH, std=100)
        state[f"mapping/Dense{number}/bias"] = draw(LENGTH, std=50)
    state["synthesis/4x4/Const/const"] = draw(1, WIDTHS[0], 4, 4)
    for level, (side, outputs) in enumerate(zip(SIDES, WIDTHS, strict=True)):
        block, inputs = f"synthesis/{side}x{side}", WIDTHS[max(0, level - 1)]
        convs = {"Conv0_up": inputs, "Conv1": outputs} if level else {"Conv": outputs}
        for name, taken in (convs | {"ToRGB": outputs}).items():
            made, kernel = (3, 1) if name == "ToRGB" else (outputs, 3)
            state[f"{block}/{name}/weight"] = draw(kernel, kernel, taken, made)
            state[f"{block}/{name}/bias"] = draw(made)
            state[f"{block}/{name}/mod_weight"] = draw(LENGTH, taken)
            state[f"{block}/{name}/mod_bias"] = draw(taken)
        for name in convs:
            state[f"{block}/{name}/noise_strength"] = draw(1)[0]
            number = 2 * level - (name == "Conv0_up")
            state[f"synthesis/noise{number}"] = draw(1, 1, side, side)
    return state


def tensorflow_picture(state: State, z: Tensor) -> Tensor:
    w = unit(z)
    for number in range(DEPTH):
        place = f"mapping/Dense{number}"
        w = active(dense(w, state[f"{place}/weight"].T, state[f"{place}/bias"], 0.01))

    def style(place: str) -> Tensor:
        return dense(w, state[f"{place}/mod_weight"].T, state[f"{place}/mod_bias"]) + 1

    def doubled(x: Tensor, weight: Tensor) -> Tensor:  # a plain convolution among zeros
        return F.conv2d(F.pad(spread(x)[:, :, :-1, :-1], (2, 2, 2, 2)), weight)

    def conv(x: Tensor, place: str, noise: int) -> Tensor:
        weight, up = state[f"{place}/weight"].permute(3, 2, 0, 1) / math.sqrt(9 * x.shape[1]), "up" in place
        y = modulated(x, weight, style(place), doubled if up else same, 1e-8)
        y = filtered(y, FIR * 4, 1, 1) if up else y
        y = y + state[f"synthesis/noise{noise}"] * state[f"{place}/noise_strength"]
        return active(y + state[f"{place}/bias"][:, None, None])

    def rgb(x: Tensor, place: str) -> Tensor:
        return coloured(x, state[f"{place}/weight"][0, 0].T, style(place), state[f"{place}/bias"])

    x = conv(state["synthesis/4x4/Const/const"].expand(len(z), -1, -1, -1), "synthesis/4x4/Conv", 0)
    image = rgb(x, "synthesis/4x4/ToRGB")
    for k, side in enumerate(SIDES[1:]):
        block = f"synthesis/{side}x{side}"
        x = conv(conv(x, f"{block}/Conv0_up", 2 * k + 1), f"{block}/Conv1", 2 * k + 2)
        image = filtered(spread(image), FIR * 4, 2, 1) + rgb(x, f"{block}/ToRGB")
    return image


@dataclass(frozen=True)
class Program:
    """A layout: its generators, their pictures of latents [N, LENGTH], and where the mean style vector is."""

    make: Callable[[int], State]
    picture: Callable[[State, Tensor], Tensor]
    mean: str


PROGRAMS = {
    "rosinality": Program(rosinality, rosinality_picture, "latent_avg"),
    "NVIDIA": Program(nvidia, nvidia_picture, "mapping.w_avg"),
    "genforce": Program(genforce, genforce_picture, "truncation.w_avg"),
    "TensorFlow": Program(tensorflow, tensorflow_picture, "dlatent_avg"),
}
