"""The names and forms that other programs give to a StyleGAN2's tensors, as tables that are read both ways.

A row pairs a tensor of our networks with a key of a state dict. The low-pass filters, which our networks do not keep,
have the name FILTER and are normed to a sum of 1. Sources: the state dicts of rosinality/stylegan2-pytorch, of
NVlabs/stylegan2-ada-pytorch and NVlabs/stylegan3, of genforce/genforce, and of NVlabs/stylegan2.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...layers.resampling import FIR

__all__ = ["FILTER", "LAYOUTS", "Form", "Layout", "Row", "low_pass", "ours", "theirs"]

FILTER = "filter"


@dataclass(frozen=True)
class Form:
    """How a layout keeps a tensor: a function to our form, and one back."""

    ours: Callable[[Tensor], Tensor]
    theirs: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Row:
    """A tensor of our networks, its key in the other state dict, and its form there."""

    name: str
    key: str
    form: Form


@dataclass(frozen=True)
class Layout:
    """The state dicts of a program.

    Attributes:
        name: in reports.
        mark: a key that its generators have, and no other state dict.
        generator: the rows of a generator, given its numbers of blocks and of mapping layers.
        critic_mark, critic: likewise for discriminators; the rows depend on the number of blocks alone.
        raw_epsilon: whether its demodulation adds its epsilon to weights without their gain.
        labels_by_shape: whether shapes alone tell a conditional network, whose first layer has twice the inputs.
        mean_beside: whether the mean style vector lies beside the state dict.
    """

    name: str
    mark: str
    generator: Callable[[int, int], Iterable[Row]]
    critic_mark: str
    critic: Callable[[int], Iterable[Row]]
    raw_epsilon: bool = False
    labels_by_shape: bool = True
    mean_beside: bool = False


def low_pass() -> Tensor:
    """The low-pass filter, [4, 4], of sum 1."""
    line = torch.tensor(FIR) / sum(FIR)
    return line[:, None] * line


def ours(rows: Iterable[Row], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of our network that a state dict holds, filters left out; the shapes have been checked."""
    return {row.name: row.form.ours(state[row.key]) for row in rows if row.name != FILTER and row.key in state}


def theirs(rows: Iterable[Row], network: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The other program's state dict of a network of ours."""
    kept = {**network, FILTER: low_pass()}
    return {row.key: row.form.theirs(kept[row.name]) for row in rows}


# The forms.

_SAME = Form(lambda t: t, lambda t: t)
_FIRST = Form(lambda t: t[0], lambda t: t[None])
_MAP = Form(lambda t: t[0, 0], lambda t: t[None, None])
_RGB_BIAS = Form(lambda t: t.reshape(3), lambda t: t.reshape(1, 3, 1, 1))
_FLIPPED = Form(lambda t: t.flip(2, 3), lambda t: t.flip(2, 3))
_LESS_ONE = Form(lambda t: t + 1, lambda t: t - 1)
_TURNED = Form(lambda t: t.mT, lambda t: t.mT)
_INWARD = Form(lambda t: t.permute(3, 2, 0, 1), lambda t: t.permute(2, 3, 1, 0))  # [side, side, in, out] there
_INWARD_FLIPPED = Form(lambda t: t.permute(3, 2, 0, 1).flip(2, 3), lambda t: t.flip(2, 3).permute(2, 3, 1, 0))
_TIMES_4 = Form(lambda t: t / 4, lambda t: t * 4)
_MAP_TIMES_4 = Form(lambda t: t[0, 0] / 4, lambda t: t[None, None] * 4)

# A layer's tensors by our names: the rest of the key, and the form.
_Tensors = Mapping[str, tuple[str, Form]]
_PLAIN: _Tensors = {"weight": ("weight", _SAME), "bias": ("bias", _SAME)}


def _layer(name: str, key: str, tensors: _Tensors) -> Iterator[Row]:
    for ending, (rest, form) in tensors.items():
        yield Row(f"{name}.{ending}", f"{key}{rest}", form)


def _levels(blocks: int) -> Iterator[tuple[int, int]]:
    """Number and side of each block, from 4x4 on."""
    return ((level, 4 << level) for level in range(blocks))


# NVIDIA's PyTorch code: kernels in transposed orientation, as ours.

_NV_STYLE: _Tensors = {"style.weight": ("affine.weight", _SAME), "style.bias": ("affine.bias", _SAME)}
_NV_RGB = {**_PLAIN, **_NV_STYLE}
_NV_CONV = {**_NV_RGB, "noise_strength": ("noise_strength", _SAME), "noise": ("noise_const", _SAME)}


def _nvidia(blocks: int, mapping: int) -> Iterator[Row]:
    for number in range(mapping):
        yield from _layer(f"mapping.{number}", f"mapping.fc{number}.", _PLAIN)
    yield Row("w_avg", "mapping.w_avg", _SAME)
    yield Row("const", "synthesis.b4.const", _SAME)
    for level, side in _levels(blocks):
        place = f"synthesis.b{side}."
        yield Row(FILTER, f"{place}resample_filter", _SAME)
        for name, conv in (("up", "conv0"), ("conv", "conv1")) if level else (("conv", "conv1"),):
            yield from _layer(f"b{side}.{name}", f"{place}{conv}.", _NV_CONV)
            yield Row(FILTER, f"{place}{conv}.resample_filter", _SAME)
        yield from _layer(f"b{side}.rgb", f"{place}torgb.", _NV_RGB)


def _nvidia_critic(blocks: int) -> Iterator[Row]:
    for level, side in _levels(blocks):
        if not level:
            continue
        yield Row(FILTER, f"b{side}.resample_filter", _SAME)
        yield from _layer(f"b{side}.conv", f"b{side}.conv0.", _PLAIN)
        yield from _layer(f"b{side}.down", f"b{side}.conv1.", _PLAIN)
        yield Row(f"b{side}.skip.weight", f"b{side}.skip.weight", _SAME)
        layers = ("conv0", "conv1", "skip", *(("fromrgb",) if level == blocks - 1 else ()))
        yield from (Row(FILTER, f"b{side}.{layer}.resample_filter", _SAME) for layer in layers)
    yield from _layer(f"b{2 << blocks}.rgb", f"b{2 << blocks}.fromrgb.", _PLAIN)
    for layer in ("conv", "fc", "out"):
        yield from _layer(f"b4.{layer}", f"b4.{layer}.", _PLAIN)
    yield Row(FILTER, "b4.conv.resample_filter", _SAME)


# rosinality: a batch axis before kernels, filters that carry the gain of doubling, the mean outside of the state dict.

_ROS_STYLE: _Tensors = {
    "weight": ("conv.weight", _FIRST),
    "style.weight": ("conv.modulation.weight", _SAME),
    "style.bias": ("conv.modulation.bias", _SAME),
}
_ROS_RGB = {**_ROS_STYLE, "bias": ("bias", _RGB_BIAS)}
_ROS_CONV = {**_ROS_STYLE, "bias": ("activate.bias", _SAME), "noise_strength": ("noise.weight", _FIRST)}
# Of the discriminator, whose layers are sequences of a convolution and an activation, some behind a filter.
_ROS_PAIR: _Tensors = {"weight": ("0.weight", _SAME), "bias": ("1.bias", _SAME)}
_ROS_BLURRED: _Tensors = {"weight": ("1.weight", _SAME), "bias": ("2.bias", _SAME)}


def _rosinality(blocks: int, mapping: int) -> Iterator[Row]:
    for number in range(mapping):
        yield from _layer(f"mapping.{number}", f"style.{number + 1}.", _PLAIN)
    yield Row("w_avg", "latent_avg", _SAME)
    yield Row("const", "input.input", _FIRST)
    for level, side in _levels(blocks):
        if level:
            yield from _layer(f"b{side}.up", f"convs.{2 * level - 2}.", _ROS_CONV)
            yield Row(f"b{side}.up.noise", f"noises.noise_{2 * level - 1}", _MAP)
            yield Row(FILTER, f"convs.{2 * level - 2}.conv.blur.kernel", _TIMES_4)
            yield Row(FILTER, f"to_rgbs.{level - 1}.upsample.kernel", _TIMES_4)
        yield from _layer(f"b{side}.conv", f"convs.{2 * level - 1}." if level else "conv1.", _ROS_CONV)
        yield Row(f"b{side}.conv.noise", f"noises.noise_{2 * level}", _MAP)
        yield from _layer(f"b{side}.rgb", f"to_rgbs.{level - 1}." if level else "to_rgb1.", _ROS_RGB)


def _rosinality_critic(blocks: int) -> Iterator[Row]:
    yield from _layer(f"b{2 << blocks}.rgb", "convs.0.", _ROS_PAIR)
    for level, side in _levels(blocks):
        place = f"convs.{blocks - level}."
        if level:
            yield from _layer(f"b{side}.conv", f"{place}conv1.", _ROS_PAIR)
            yield from _layer(f"b{side}.down", f"{place}conv2.", _ROS_BLURRED)
            yield Row(f"b{side}.skip.weight", f"{place}skip.1.weight", _SAME)
            yield from (Row(FILTER, f"{place}{layer}.0.kernel", _SAME) for layer in ("conv2", "skip"))
    yield from _layer("b4.conv", "final_conv.", _ROS_PAIR)
    yield from _layer("b4.fc", "final_linear.0.", _PLAIN)
    yield from _layer("b4.out", "final_linear.1.", _PLAIN)


# genforce: up-convolutions in plain orientation, biases of styles without the 1 that is added at run time.

_GF_RGB: _Tensors = {
    **_PLAIN,
    "style.weight": ("style.weight", _SAME),
    "style.bias": ("style.bias", _LESS_ONE),
}
_GF_CONV = {**_GF_RGB, "noise_strength": ("noise_strength", _SAME), "noise": ("noise", _MAP)}
_GF_UP = {**_GF_CONV, "weight": ("weight", _FLIPPED)}


def _genforce(blocks: int, mapping: int) -> Iterator[Row]:
    for number in range(mapping):
        yield from _layer(f"mapping.{number}", f"mapping.dense{number}.", _PLAIN)
    yield Row("w_avg", "truncation.w_avg", _SAME)
    yield Row("const", "synthesis.early_layer.const", _FIRST)
    for level, side in _levels(blocks):
        if level:
            yield from _layer(f"b{side}.up", f"synthesis.layer{2 * level - 1}.", _GF_UP)
            yield Row(FILTER, f"synthesis.layer{2 * level - 1}.filter.kernel", _MAP_TIMES_4)
        yield from _layer(f"b{side}.conv", f"synthesis.layer{2 * level}.", _GF_CONV)
        yield from _layer(f"b{side}.rgb", f"synthesis.output{level}.", _GF_RGB)
    yield Row(FILTER, "synthesis.upsample.kernel", _MAP_TIMES_4)


def _genforce_critic(blocks: int) -> Iterator[Row]:
    last = 2 * blocks - 2
    yield from _layer(f"b{2 << blocks}.rgb", "input0.", _PLAIN)
    for level, side in _levels(blocks):
        number = blocks - 1 - level
        if level:
            yield from _layer(f"b{side}.conv", f"layer{2 * number}.", _PLAIN)
            yield from _layer(f"b{side}.down", f"layer{2 * number + 1}.", _PLAIN)
            yield Row(FILTER, f"layer{2 * number + 1}.filter.kernel", _MAP)
            yield Row(f"b{side}.skip.weight", f"skip_layer{number}.weight", _SAME)
            yield Row(FILTER, f"skip_layer{number}.filter.kernel", _MAP)
    for number, layer in enumerate(("conv", "fc", "out"), start=last):
        yield from _layer(f"b4.{layer}", f"layer{number}.", _PLAIN)


# NVIDIA's TensorFlow code: as genforce, with the axes of matrices and kernels the other way round.

_TF_DENSE: _Tensors = {"weight": ("weight", _TURNED), "bias": ("bias", _SAME)}
_TF_KERNEL: _Tensors = {"weight": ("weight", _INWARD), "bias": ("bias", _SAME)}
_TF_RGB: _Tensors = {
    **_TF_KERNEL,
    "style.weight": ("mod_weight", _TURNED),
    "style.bias": ("mod_bias", _LESS_ONE),
}
_TF_CONV = {**_TF_RGB, "noise_strength": ("noise_strength", _SAME)}
_TF_UP = {**_TF_CONV, "weight": ("weight", _INWARD_FLIPPED)}


def _tensorflow(blocks: int, mapping: int) -> Iterator[Row]:
    for number in range(mapping):
        yield from _layer(f"mapping.{number}", f"mapping/Dense{number}/", _TF_DENSE)
    yield Row("w_avg", "dlatent_avg", _SAME)
    yield Row("const", "synthesis/4x4/Const/const", _FIRST)
    for level, side in _levels(blocks):
        place = f"synthesis/{side}x{side}/"
        if level:
            yield from _layer(f"b{side}.up", f"{place}Conv0_up/", _TF_UP)
            yield Row(f"b{side}.up.noise", f"synthesis/noise{2 * level - 1}", _MAP)
        yield from _layer(f"b{side}.conv", f"{place}{'Conv1' if level else 'Conv'}/", _TF_CONV)
        yield Row(f"b{side}.conv.noise", f"synthesis/noise{2 * level}", _MAP)
        yield from _layer(f"b{side}.rgb", f"{place}ToRGB/", _TF_RGB)


def _tensorflow_critic(blocks: int) -> Iterator[Row]:
    yield from _layer(f"b{2 << blocks}.rgb", f"{2 << blocks}x{2 << blocks}/FromRGB/", _TF_KERNEL)
    for level, side in _levels(blocks):
        if level:
            yield from _layer(f"b{side}.conv", f"{side}x{side}/Conv0/", _TF_KERNEL)
            yield from _layer(f"b{side}.down", f"{side}x{side}/Conv1_down/", _TF_KERNEL)
            yield Row(f"b{side}.skip.weight", f"{side}x{side}/Skip/weight", _INWARD)
    yield from _layer("b4.conv", "4x4/Conv/", _TF_KERNEL)
    yield from _layer("b4.fc", "4x4/Dense0/", _TF_DENSE)
    yield from _layer("b4.out", "Output/", _TF_DENSE)


LAYOUTS = (
    Layout(
        "rosinality", "to_rgb1.conv.weight", _rosinality, "final_conv.0.weight", _rosinality_critic, mean_beside=True
    ),
    Layout(
        "NVIDIA",
        "synthesis.b4.const",
        _nvidia,
        "b4.out.weight",
        _nvidia_critic,
        raw_epsilon=True,
        labels_by_shape=False,
    ),
    Layout("genforce", "synthesis.early_layer.const", _genforce, "input0.weight", _genforce_critic),
    Layout("TensorFlow", "synthesis/4x4/Const/const", _tensorflow, "4x4/Dense0/weight", _tensorflow_critic),
)
