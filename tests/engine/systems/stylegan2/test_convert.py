"""Files that are no StyleGAN2, or one that ours cannot compute, are refused in a sentence that names the reason."""

import pytest
import torch

from zellige.engine.checkpoint import faults

from .foreign_layouts import PROGRAMS
from .test_layouts import NETWORKS, converted
from .textbook import State

every_program = pytest.mark.parametrize("program", PROGRAMS)


def state(program: str, **changes: torch.Tensor) -> State:
    return PROGRAMS[program].make(0) | changes


def x(*shape: int) -> torch.Tensor:
    return torch.zeros(shape)


RELATIVES = {
    "StyleGAN3": ({"G_ema.synthesis.input.freqs": x(4, 2), "D.b4.out.weight": x(1, 4)}, "a StyleGAN3"),
    "StyleGAN1 of TensorFlow": (
        {"Gs.synthesis/4x4/Const/const": x(1, 4, 4, 4), "Gs.synthesis/4x4/Const/StyleMod/weight": x(4, 8)},
        "a StyleGAN1"),
    "StyleGAN1 of genforce": ({"generator_smooth.synthesis.layer0.const": x(1, 4, 4, 4)}, "a StyleGAN1"),
    "StyleGAN1 of the zoo": ({"avgG.noiseMod00.module.weight": x(1, 1, 1, 1)}, "a StyleGAN1"),
    "configurations a to d": (
        {"Gs.synthesis/4x4/Const/const": x(1, 4, 4, 4), "Gs.synthesis/ToRGB_lod0/weight": x(1, 1, 4, 3)},
        "the configurations a to d"),
}  # fmt: skip


@pytest.mark.parametrize("name", RELATIVES)
def test_relatives_are_named(name: str) -> None:
    file, reason = RELATIVES[name]
    with pytest.raises(faults.UnconvertibleError) as caught:
        converted(file)
    assert str(caught.value).startswith("weights.pt holds a StyleGAN") and reason in str(caught.value)


VARIANTS = {
    "labels of NVIDIA": (state("NVIDIA", **{"mapping.embed.weight": x(7, 3)}), {}, "is conditional"),
    "labels of NVIDIA's modules": (state("NVIDIA"), {"c_dim": 10}, "is conditional"),
    "labels of TensorFlow": (state("TensorFlow", **{"mapping/LabelEmbed/weight": x(3, 7)}), {}, "is conditional"),
    "labels that rosinality's shapes tell": (state("rosinality", **{"style.1.weight": x(7, 14)}), {}, "is conditional"),
    "labels that TensorFlow's shapes tell": (
        state("TensorFlow", **{"mapping/Dense0/weight": x(14, 7)}), {}, "is conditional"),
    "resnet by keys": (state("NVIDIA", **{"synthesis.b8.skip.weight": x(5, 6, 1, 1)}), {}, "architecture 'resnet'"),
    "resnet by modules": (state("NVIDIA"), {"synthesis.b8.architecture": "resnet"}, "architecture 'resnet'"),
    "orig by keys": (
        {k: t for k, t in state("NVIDIA").items() if "torgb" not in k or "b16" in k}, {}, "architecture 'orig'"),
    "another activation": (state("NVIDIA"), {"synthesis.b8.conv1.activation": "relu"}, "activation 'relu'"),
    "another activation of TensorFlow": (state("TensorFlow"), {"static_kwargs.nonlinearity": "relu"}, "'relu'"),
    "two clamps": (state("NVIDIA"), {"a.conv_clamp": 256, "b.conv_clamp": None}, "different bounds"),
    "a map that is not square": (state("NVIDIA", **{"synthesis.b4.const": x(6, 4, 8)}), {}, "[6, 4, 8] in place"),
    "a width beyond all": (state("NVIDIA", **{"synthesis.b4.conv1.bias": x(5000)}), {}, "channels.0: Input should"),
    "no numbers": (state("NVIDIA", **{"mapping.fc2.bias": x(0)}), {}, "w_dim: Input should be greater"),
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_that_ours_cannot_compute_are_refused(name: str) -> None:
    file, values, reason = VARIANTS[name]
    with pytest.raises(faults.UnconvertibleError) as caught:
        converted(file, **values)
    assert str(caught.value).startswith("weights.pt: its network 'plain' ") and reason in str(caught.value)


@every_program
def test_keys_that_do_not_fit_are_listed(program: str) -> None:
    prefix = NETWORKS[program][0]
    file = {prefix + key: tensor for key, tensor in PROGRAMS[program].make(0).items()}
    gone = next(
        key for key in file if key.endswith(("affine.weight", "style.weight", "modulation.weight", "mod_weight"))
    )
    wide = next(key for key in file if key.endswith(("torgb.bias", "output0.bias", "to_rgb1.bias", "ToRGB/bias")))
    extra = f"{prefix}extra.weight"
    file |= {wide: torch.zeros(1, 4), extra: torch.zeros(2)}
    del file[gone]
    with pytest.raises(faults.ForeignKeysError) as caught:
        converted(file)
    said = str(caught.value)
    assert f"its network '{prefix[:-1]}' has the names of {program}'s StyleGAN2 and does not fit: missing " in said
    assert f" missing {gone[len(prefix) :]}; " in said
    assert (
        "; unexpected extra.weight; " in said and f"of another shape {wide[len(prefix) :]} [1, 4] in place of" in said
    )


@every_program
def test_a_network_without_a_block_or_bias_names_the_missing_keys(program: str) -> None:
    for ending in ("conv1.bias", "Conv1/bias", "layer2.bias", "convs.1.activate.bias"):
        file = {key: tensor for key, tensor in PROGRAMS[program].make(0).items() if not key.endswith(ending)}
        if len(file) < len(PROGRAMS[program].make(0)):
            with pytest.raises(faults.ForeignKeysError, match=rf"missing [^ ]*{ending}"):
                converted(file)


def test_a_network_without_its_constant_names_the_missing_key() -> None:
    file = {key: tensor for key, tensor in state("rosinality").items() if key != "input.input"}
    with pytest.raises(faults.ForeignKeysError, match=r"missing input\.input\.$"):
        converted(file)


def test_many_keys_are_counted() -> None:
    file = state("NVIDIA") | {f"extra.{k}": torch.zeros(1) for k in range(30)}
    with pytest.raises(faults.ForeignKeysError, match=r"unexpected extra\.0, .*extra\.19 and 10 more\.$"):
        converted(file)


def test_integers_are_of_another_shape() -> None:
    with pytest.raises(faults.ForeignKeysError, match=r"shape mapping\.fc0\.bias \[7\] of torch\.int64 in place"):
        converted(state("NVIDIA", **{"mapping.fc0.bias": torch.zeros(7, dtype=torch.int64)}))


@every_program
def test_other_filters_are_refused(program: str) -> None:
    filters = {key: t for key, t in PROGRAMS[program].make(0).items() if key.endswith(("kernel", "filter"))}
    for key, taps in filters.items():
        for other in (torch.ones_like(taps) / 16, taps * 2):
            with pytest.raises(faults.ForeignKeysError, match=rf"filters other than \[1, 3, 3, 1\] {key}"):
                converted(state(program, **{key: other}))


def test_tensors_of_no_layout_are_shown_with_the_layouts_that_are_known() -> None:
    reason = r"holds the tensors 'a', 'b', 'c' and others, whose layout no system knows; known are StyleGAN2 of ros"
    with pytest.raises(faults.UnknownLayoutError, match=reason):
        converted({name: torch.zeros(1) for name in "abcd"})
    with pytest.raises(faults.UnknownLayoutError, match="holds no tensors"):
        converted({})
