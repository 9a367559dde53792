"""All kernels, each in all its forms."""

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from zellige import kernels
from zellige.kernels import _native

from . import textbook
from .judge import DTYPES, ROW_LAYOUTS
from .subject import Size, Subject


def unchanged(*size: int) -> Size:
    return size


def doubled(n: int, c: int, h: int, w: int) -> Size:
    return n, c, 2 * h, 2 * w


MAPS: dict[str, Any] = {
    "sizes": [(1, 1, 1, 1), (2, 3, 5, 7), (1, 2, 33, 35), (3, 1, 1, 9)],
    "deep": [(2, 3, 5, 7), (1, 67, 3, 2)],
    "shared": [(4, 12, 64, 66)],
    "long": lambda values, channels_last: (1, values, 1, 2) if channels_last else (1, 2, 1, values),
    "empty": [(0, 3, 4, 4), (2, 0, 4, 4), (2, 3, 0, 4), (2, 3, 4, 0)],
    "any_size": st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(0, 20), st.integers(0, 20)),
    "result": unchanged,
    "small": (2, 3, 4, 7),
    "full": (8, 96, 127, 129),
}
IMAGES: dict[str, Any] = MAPS | {
    "sizes": [(1, 1, 1, 1), (2, 3, 5, 7), (3, 4, 1, 3), (1, 2, 1, 1023), (2, 3, 25, 41)],
    "deep": [(2, 3, 25, 41)],
    "shared": [(4, 3, 96, 96)],
    "long": lambda values, channels_last: (1, 3, 1, values),
    "empty": [(0, 3, 4, 4), (2, 3, 0, 4), (2, 3, 4, 0)],
    "any_size": st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(0, 40), st.integers(0, 40)),
    "full": (8, 3, 513, 511),
}


def affine_relu(upsample: bool) -> Subject:
    own = MAPS | {"result": doubled} if upsample else MAPS
    return Subject(
        name="affine_relu x2" if upsample else "affine_relu",
        call=lambda *tensors, backend: kernels.affine_relu(*tensors, upsample, backend=backend),
        textbook=partial(textbook.affine_relu, upsample=upsample),
        shapes=lambda n, c, h, w: [(n, c, h, w), (n, c), (n, c)],
        equal=("native", "triton"),
        gradients=3,
        **own,
    )


def affine_relu_varying(name: str, rows: bool, columns: bool, upsample: bool) -> Subject:
    """Factors that vary along rows, columns or both: slices of maps, so that they lie in memory as the map does."""

    def sliced(factors: Tensor) -> Tensor:
        return factors[:, :, slice(None if rows else 1), slice(None if columns else 1)]

    own = MAPS | {"result": doubled} if upsample else MAPS
    return Subject(
        name=f"affine_relu{' x2' if upsample else ''}, {name}",
        call=lambda x, scale, shift, backend: kernels.affine_relu(
            x, sliced(scale), sliced(shift), upsample, backend=backend
        ),
        textbook=lambda x, scale, shift: textbook.affine_relu(x, sliced(scale), sliced(shift), upsample),
        shapes=lambda *size: [size, size, size],
        equal=("native", "triton"),
        gradients=3,
        **own,
    )


def bias_noise_act(name: str, noises: int) -> Subject:
    def shapes(n: int, c: int, h: int, w: int) -> list[Size]:
        return [(n, c, h, w), (c,), *([(min(noises, n), 1, h, w), ()] if noises else [])]

    return Subject(
        name=name,
        call=kernels.bias_noise_act,
        textbook=textbook.bias_noise_act,
        shapes=shapes,
        equal=("native", "triton"),
        gradients=4 if noises else 2,
        **MAPS,
    )


def scaled_bias_noise_act(noisy: bool) -> Subject:
    """With a factor for each channel of each sample, and a clamp that some values pass."""

    def arranged(function: Any) -> Any:
        return lambda x, bias, factor, *others, **how: function(x, bias, *others, factor=factor, clamp=1.5, **how)

    return Subject(
        name=f"bias_noise_act, factor{'' if noisy else ', no noise'}",
        call=arranged(kernels.bias_noise_act),
        textbook=arranged(textbook.bias_noise_act),
        shapes=lambda n, c, h, w: [(n, c, h, w), (c,), (n, c), *([(n, 1, h, w), ()] if noisy else [])],
        equal=("native", "triton"),
        gradients=5 if noisy else 3,
        **MAPS,
    )


def blur_noise_act() -> Subject:
    def arranged(function: Any) -> Any:
        def called(x: Tensor, bias: Tensor, factor: Tensor, noise: Tensor, strength: Tensor, **how: Any) -> Tensor:
            specks = noise[:, :, : x.shape[2] - 1, : x.shape[3] - 1]
            return function(x, bias, specks, strength, factor=factor, clamp=1.5, **how)

        return called

    own = MAPS | {
        "sizes": [(1, 1, 2, 2), (2, 3, 5, 7), (1, 2, 33, 35), (3, 1, 2, 9), (1, 300, 3, 20)],
        "shared": [(4, 12, 64, 66), (1, 70, 40, 80)],
        "long": lambda values, channels_last: (1, values, 2, 2) if channels_last else (1, 2, 2, values + 2),
        "empty": [(0, 3, 4, 4), (2, 0, 4, 4)],
        "any_size": st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(2, 20), st.integers(2, 20)),
        "result": lambda n, c, h, w: (n, c, h - 1, w - 1),
    }
    return Subject(
        name="blur_noise_act",
        call=arranged(kernels.blur_noise_act),
        textbook=arranged(textbook.blur_noise_act),
        shapes=lambda n, c, h, w: [(n, c, h, w), (c,), (n, c), (n, 1, h + 9, w + 9), ()],  # layouts change sides
        triton=False,
        equal=("native",),
        by_pixel=True,
        **own,
    )


def fir_resample(up: bool) -> Subject:
    def even(tensors: list[Tensor]) -> list[Tensor]:
        return [x[:, :, x.shape[2] % 2 :, x.shape[3] % 2 :] for x in tensors]

    own = MAPS | {  # sizes are those of the smaller map
        "sizes": [(1, 1, 1, 1), (2, 2, 3, 5), (1, 1, 17, 33), (3, 1, 1, 9)],
        "deep": [(1, 3, 3, 5), (1, 67, 1, 2)],
        "shared": [(4, 24, 48, 50), (1, 1100, 3, 5), (1, 2, 3, 5000), (1, 513, 2, 9)],
        "long": lambda values, channels_last: (1, values, 1, 2) if channels_last else (1, 1, 1, values),
        "any_size": st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(0, 12), st.integers(0, 12)),
        "result": doubled if up else unchanged,
        "small": (2, 2, 2, 4),
        "full": (8, 96, 63, 65),
    }
    return Subject(
        name="fir_resample up" if up else "fir_resample down",
        call=lambda x, backend: kernels.fir_resample(x, up, backend=backend),
        textbook=partial(textbook.fir_resample, up=up),
        shapes=lambda *size: [size if up else doubled(*size)],
        refit=(lambda tensors: tensors) if up else even,
        equal=("native", "triton"),
        gradients=1,
        **own,
    )


def glu_layer_norm() -> Subject:
    # A row is a whole sample: of 1 to 4097 values around the sizes of lanes, blocks and parts.
    own = MAPS | {
        "sizes": [
            (1, 1, 1, 1),
            (2, 3, 5, 7),
            (3, 1, 1, 3),
            (2, 1, 1, 7),
            (1, 1, 33, 31),
            (1, 1, 25, 41),
            (2, 17, 1, 241),
        ],
        "deep": [(2, 3, 5, 7), (1, 131, 3, 2), (2, 17, 1, 241)],
        "shared": [(2, 24, 96, 96), (6, 12, 32, 33)],
        "long": lambda values, channels_last: (1, values, 1, 2) if channels_last else (1, 1, 1, values),
    }
    return Subject(
        name="glu_layer_norm",
        call=kernels.glu_layer_norm,
        textbook=textbook.glu_layer_norm,
        shapes=lambda n, c, h, w: [(n, 2 * c, h, w), (c,), (c,)],
        one_order=False,
        gradients=3,
        **own,
    )


def phase_epilogue(activation: str) -> Subject:
    gated = activation == "glu_layer_norm"
    epilogue = textbook.glu_layer_norm if gated else textbook.affine_relu

    def shapes(n: int, c: int, h: int, w: int) -> list[Size]:
        factors = (c,) if gated else (n, c)
        return [(n, (8 if gated else 4) * c, h, w), factors, factors]

    own = MAPS | {
        "sizes": [(1, 1, 1, 1), (2, 3, 5, 7), (1, 2, 17, 19), (3, 1, 1, 3)],
        "deep": [(2, 3, 5, 7), (1, 131, 3, 2)],
        "shared": [(2, 48, 48, 48), (6, 24, 16, 17)],
        "long": lambda values, channels_last: (1, values, 1, 2) if channels_last else (1, 1, 1, values),
        "any_size": st.tuples(st.integers(0, 3), st.integers(0, 20), st.integers(0, 12), st.integers(0, 20)),
        "result": doubled,
        "full": (8, 96, 63, 65),
    }
    return Subject(
        name=f"phase_epilogue, {activation}",
        call=lambda *tensors, backend: kernels.phase_epilogue(*tensors, activation, backend=backend),
        textbook=lambda x, weight, bias: epilogue(textbook.interleaved(x), weight, bias),
        shapes=shapes,
        equal=() if gated else ("native", "triton"),
        one_order=not gated,
        **own,
    )


def mask_composite(logits: bool, output: str) -> Subject:
    own = IMAGES | {"result": unchanged if output == "float" else lambda n, c, h, w: (n, h, w, c)}
    return Subject(
        name=f"mask_composite, {'logits' if logits else 'finished'}{'' if output == 'float' else ', bytes'}",
        call=partial(kernels.mask_composite, logits=logits, output=output),
        textbook=partial(textbook.mask_composite, logits=logits),
        shapes=lambda n, c, h, w: [(n, c, h, w), (n, c, h, w), (n, 1, h, w)],
        typed=3,
        equal=() if logits else ("native", "triton"),
        gradients=3 if output == "float" else 0,
        kind="values" if output == "float" else "bytes",
        **own,
    )


def rearrange(equal_widths: bool) -> Subject:
    """On CPUs the library's products run for so few tokens; test_rearrange.py has what runs for many."""
    counts = st.integers(0, 3), st.integers(0, 40), st.integers(1, 40), st.integers(1, 70)
    return Subject(
        name="rearrange, equal widths" if equal_widths else "rearrange",
        call=kernels.rearrange,
        textbook=textbook.rearrange,
        shapes=lambda n, t, s, dk, dv: [(n, t, dk), (n, s, dk), (n, s, dv)],
        typed=3,
        # N, T, S, Dk, Dv: single values, sizes beside those of a tile, widths beside those of a chunk.
        sizes=[(1, 1, 1, 1, 1), (2, 3, 7, 16, 16), (1, 65, 3, 64, 64), (1, 7, 3, 520, 520)]
        if equal_widths
        else [(2, 7, 3, 1, 40), (1, 33, 64, 33, 130), (1, 1, 130, 128, 40), (1, 3, 65, 16, 520)],
        long=lambda values, _: (1, 2, values, 3, 3 if equal_widths else 2),
        empty=[(0, 3, 3, 5, 5 if equal_widths else 4), (2, 0, 3, 5, 5 if equal_widths else 4)],
        any_size=st.tuples(*counts).map(lambda size: (*size, size[3]))
        if equal_widths
        else st.tuples(*counts, st.integers(1, 70)),
        result=lambda n, t, s, dk, dv: (n, t, dv),
        small=(2, 5, 7, 16, 16) if equal_widths else (2, 5, 7, 16, 20),
        full=(1, 4096, 4096, 512, 512) if equal_widths else (2, 1024, 1025, 64, 520),
        native=(),
        best=None,
        one_order=False,
        gradients=3,
        layouts=tuple(ROW_LAYOUTS),
    )


def nearest_centroid(metric: str) -> Subject:
    return Subject(
        name=f"nearest_centroid, {metric}",
        call=lambda *tensors, backend: kernels.nearest_centroid(*tensors, metric, backend=backend),
        textbook=partial(textbook.distances, metric=metric),
        shapes=lambda m, k, d: [(m, d), (k, d)],
        typed=2,
        # M, K, D: single values, one fewer and one more than a block of the GPU kernel in each direction.
        sizes=[(1, 1, 1), (7, 3, 1), (63, 5, 3), (65, 65, 31), (130, 63, 33), (3, 200, 7)],
        long=lambda values, flipped: (3, values, 2) if flipped else (3, 5, values),
        empty=[(0, 4, 3)],
        any_size=st.tuples(st.integers(0, 40), st.integers(1, 90), st.integers(1, 40)),
        result=lambda m, k, d: (m,),
        small=(9, 4, 3),
        full=(8191, 257, 130),
        native=(),
        best="reference",
        layouts=tuple(ROW_LAYOUTS),
        kind="indices",
    )


def feather_blend(output: str) -> Subject:
    """The picture is a little larger than a patch, as layouts change the size of patches."""

    def picture(patches: Tensor) -> Size:
        rows, columns = patches.shape[2:]
        return rows + 4, columns + rows + 3

    def placed(tensors: list[Tensor]) -> list[Tensor]:
        """At random places, many of them partly and some wholly outside the picture."""
        patches, positions, *windows = tensors
        sides = torch.tensor([patches.shape[2], patches.shape[3]])
        return [patches, (positions * (sides + 2)).long(), *(t.abs().sub(0.2).clamp(min=0) for t in windows)]

    def framed(tensors: list[Tensor]) -> list[Tensor]:
        patches, positions, *windows = tensors
        sides = zip(windows, patches.shape[2:], strict=True)
        return [patches, positions, *(window.repeat(3)[:side] for window, side in sides)]

    return Subject(
        name="feather_blend" if output == "float" else "feather_blend, bytes",
        call=lambda patches, *others, backend: kernels.feather_blend(
            patches, *others, picture(patches), output=output, backend=backend
        ),
        textbook=lambda patches, *others: textbook.feather_blend(patches, *others, picture(patches)),
        shapes=lambda n, c, p, q: [(n, c, p, q), (n, 2), (p,), (q,)],
        finish=placed,
        refit=framed,
        # Single values, odd sides, more patches than one scan of the GPU kernel, wider than its tile.
        sizes=[(1, 1, 1, 1), (4, 3, 5, 7), (3, 2, 17, 1), (5, 4, 3, 67), (140, 3, 3, 4)],
        deep=[(4, 3, 5, 7)],
        shared=[(60, 3, 64, 65)],
        long=lambda values, _: (2, 3, 1, max(1, values - 4)),
        empty=[(0, 3, 4, 4)],
        any_size=st.tuples(st.integers(0, 6), st.integers(1, 4), st.integers(1, 70), st.integers(1, 40)),
        result=lambda n, c, p, q: (p + 4, p + q + 3, c),
        small=(5, 3, 4, 6),
        full=(256, 3, 63, 65),
        native=tuple(DTYPES),
        equal=("native", "triton"),
        kind="values" if output == "float" else "bytes",
    )


TILES: dict[str, Any] = {
    "native": (torch.float32, torch.bfloat16) if _native.has_bfloat16_dot() else (torch.float32,),
    "triton": False,
    "by_pixel": True,
    "infinities": False,  # test_winograd_conv.py says what becomes of them
    "units": 2.0,  # 1.4 were measured: in halves inputs and weights are rounded once more when they are transformed
}


def sizes_of_tiles(least: int) -> list[Size]:
    """N, C, K, H, W: single values, one beside a vector, one beside a block, more tiles than one product's."""
    return [(1, 1, 1, least, least), (2, 3, 5, 5, 7), (1, 16, 32, 3, 17), (3, 17, 31, 4, least), (1, 15, 33, 21, 23)]


def winograd_conv(upsample: bool, border: bool) -> Subject:
    """With a border: that of the map repeated, biases of nine places, and one pixel cut off every side."""

    def call(x: Tensor, weight: Tensor, bias: Tensor, backend: Any) -> Tensor:
        matrices = kernels.winograd_weight(weight[0], upsample=upsample)
        places = bias.unflatten(2, (3, 3)) if border else bias
        return kernels.winograd_conv(x, matrices, weight.shape[1], places, **options, backend=backend)

    def result(n: int, c: int, k: int, h: int, w: int) -> Size:
        return n, k, *((1 + upsample) * side - 2 * border for side in (h, w))

    def scaled(tensors: list[Tensor]) -> list[Tensor]:
        """Such weights that results are of the size of the values, as in a network."""
        x, weight, bias = tensors
        return [x, weight / (9 * x.shape[1]) ** 0.5, bias]

    options: dict[str, Any] = {"padding": "replicate", "crop": 1} if border else {}
    least = 1 if not border else 2 if upsample else 3  # pixels a side
    channels, sides = st.integers(1, 40), st.integers(least, 12)
    return Subject(
        name=f"winograd_conv{' x2' if upsample else ''}{', border' if border else ''}",
        call=call,
        textbook=partial(textbook.winograd_conv, upsample=upsample, **options),
        # What is no map has another rank, so that a map's layout does not change its sides.
        shapes=lambda n, c, k, h, w: [(n, c, h, w), (1, k, c, 3, 3), (n, k, 9) if border else (k,)],
        typed=2,
        finish=scaled,
        sizes=sizes_of_tiles(least),
        deep=[(2, 33, 3, 5, 7), (1, 67, 33, 3, 4)],
        shared=[(2, 12, 40, 33, 34), (3, 150, 96, 9, 11)],  # threads with tiles of their own, and with channels
        long=lambda values, channels_last: (1, values, 2, 3, 3) if channels_last else (1, 1, 2, 3, values + 2),
        empty=[(0, 3, 5, 4, 4)],
        any_size=st.tuples(st.integers(0, 3), channels, channels, sides, sides),
        result=result,
        small=(2, 4, 5, 6, 7),  # no 3, which compilers would take for the sides of the weights
        full=(2, 64, 65, 63, 65),
        **TILES,
    )


def strided_winograd_conv(transposed: bool) -> Subject:
    """In tiles of 3 cells, or transposed of 2: those of 3 spread NaN, of which test_winograd_conv.py says how far."""

    def call(x: Tensor, weight: Tensor, bias: Tensor, backend: Any) -> Tensor:
        matrices = kernels.winograd_weight(weight[0], transposed=transposed, cells=2 if transposed else 3)
        return kernels.winograd_conv(x, matrices, len(bias), bias, backend=backend)

    def shapes(n: int, c: int, k: int, h: int, w: int) -> list[Size]:
        return [(n, c, h, w), (1, c, k, 4, 4) if transposed else (1, k, c, 4, 4), (k,)]

    def result(n: int, c: int, k: int, h: int, w: int) -> Size:
        return (n, k, 2 * h, 2 * w) if transposed else (n, k, h // 2, w // 2)

    def scaled(tensors: list[Tensor]) -> list[Tensor]:
        """As for winograd_conv: a result has 16 products an input, a transposed one 4."""
        x, weight, bias = tensors
        return [x, weight / ((4 if transposed else 16) * x.shape[1]) ** 0.5, bias]

    least = 1 if transposed else 2  # pixels a side
    channels, sides = st.integers(1, 40), st.integers(least, 12)
    return Subject(
        name="winograd_conv transposed" if transposed else "winograd_conv /2",
        call=call,
        textbook=partial(textbook.strided_conv, transposed=transposed),
        shapes=shapes,
        typed=2,
        finish=scaled,
        sizes=sizes_of_tiles(least),
        deep=[(2, 33, 3, 5, 7), (1, 67, 33, 3, 4)],
        shared=[(2, 5, 33, 33, 34), (3, 150, 96, 9, 11)],
        long=lambda values, channels_last: (1, values, 2, 3, 3) if channels_last else (1, 1, 2, 3, values + 2),
        empty=[(0, 3, 5, 6, 6)],
        any_size=st.tuples(st.integers(0, 3), channels, channels, sides, sides),
        result=result,
        small=(2, 3, 5, 6, 7),  # no 4
        full=(2, 64, 65, 63, 65),
        **TILES,
    )


def styled_winograd_conv(transposed: bool) -> Subject:
    """With all that StyleGAN2's layers add: styles in front, factors, noise, bias, activation and clamp behind."""

    def call(x: Tensor, weight: Tensor, bias: Tensor, *others: Tensor, backend: Any) -> Tensor:
        matrices = kernels.winograd_weight(weight[0], transposed=transposed)
        names = dict(zip(("style", "factor", "noise", "strength"), others, strict=True))
        act: dict[str, Any] = {"slope": 0.2, "gain": 2**0.5, "clamp": 1.5}
        return kernels.winograd_conv(x, matrices, len(bias), bias, **names, **act, backend=backend)

    def result(n: int, c: int, k: int, h: int, w: int) -> Size:
        return (n, k, 2 * h + 1, 2 * w + 1) if transposed else (n, k, h, w)

    def shapes(n: int, c: int, k: int, h: int, w: int) -> list[Size]:
        kernel = (1, c, k, 3, 3) if transposed else (1, k, c, 3, 3)
        return [(n, c, h, w), kernel, (k,), (n, c), (n, k), (n, 1, 2 * h + 19, 2 * w + 19), (1,)]

    def scaled(tensors: list[Tensor]) -> list[Tensor]:
        x, weight, bias, style, factor, noise, strength = tensors
        return [x, weight / (9 * x.shape[1]) ** 0.5, bias, 1 + style / 4, 1 + factor / 4, noise, strength]

    def cut(function: Any) -> Any:
        """Layouts change the sides of maps, so the noise is larger than the result."""

        def called(x: Tensor, weight: Tensor, *others: Tensor, **how: Any) -> Tensor:
            *rows, noise, strength = others
            high, wide = result(1, 1, 1, *x.shape[2:])[2:]
            return function(x, weight, *rows, noise[:, :, :high, :wide], strength, **how)

        return called

    channels, sides = st.integers(1, 40), st.integers(1, 12)
    return Subject(
        name=f"winograd_conv {'3x3 transposed' if transposed else 'styled'}",
        call=cut(call),
        textbook=cut(partial(textbook.styled_conv, transposed=transposed)),
        shapes=shapes,
        typed=2,
        finish=scaled,
        sizes=sizes_of_tiles(1),
        deep=[(2, 33, 3, 5, 7)],
        shared=[(2, 12, 40, 33, 34), (3, 150, 96, 9, 11)],
        long=lambda values, channels_last: (1, values, 2, 3, 3) if channels_last else (1, 1, 2, 3, values + 2),
        empty=[(0, 3, 5, 4, 4)],
        any_size=st.tuples(st.integers(0, 3), channels, channels, sides, sides),
        result=result,
        small=(2, 4, 5, 6, 7),
        full=(2, 64, 65, 63, 65),
        **TILES,
    )


def wave_field(every: int, first: int) -> Subject:
    """With `every` rows of the map for a row of factors, or with 0 under one row of them.

    Sizes are N, S, T, K, L. Rows and columns of the table follow from the sizes, and the dtype is that of the waves,
    which are widened before the call.
    """

    def coarse(s: int) -> int:
        """The fewest rows of factors under S rows."""
        return max(1, -(-(2 * (first + s - 1) + 1 - every) // (2 * every)) + 1) if every else 1

    def cells(down: Tensor, across: Tensor) -> tuple[Tensor, Tensor]:
        """Cells of a table of 4 by 9, many of them more than once."""
        s, t = (torch.arange(size, device=down.device) for size in (down.shape[1], across.shape[2]))
        return (3 * s % 4).expand(down.shape[0], -1), (4 * t % 9).expand(down.shape[0], -1)

    def call(down: Tensor, across: Tensor, noise: Tensor, backend: Any) -> Tensor:
        wide = torch.promote_types(down.dtype, torch.float32)
        tensors = (down.to(wide), across.to(wide), noise[0].to(wide), *cells(down, across))
        return kernels.wave_field(*tensors, down.dtype, **place, backend=backend)

    place = {"every": every, "first": first} if every else {}
    side, features = st.integers(0, 20), st.integers(0, 40)
    return Subject(
        name="wave_field, between rows" if every else "wave_field",
        call=call,
        textbook=lambda down, across, noise: textbook.wave_field(down, across, noise[0], *cells(down, across), **place),
        # The table's first side says that it is no batch.
        shapes=lambda n, s, t, k, m: [(n, s, 2 * k), (n, coarse(s), t, 2 * k + m), (1, 4, 9, m)],
        # Single values, no noise, no waves, more features than a tile, more cells than one.
        sizes=[
            (1, 1, 1, 1, 1),
            (2, 5, 7, 3, 2),
            (1, 9, 3, 2, 0),
            (3, 4, 5, 0, 3),
            (1, 3, 2, 67, 65),
            (1, 13, 17, 5, 3),
        ],
        shared=[(2, 45, 70, 33, 16), (3, 2, 301, 40, 5)],
        long=lambda values, _: (1, 2, 1, values, 2),
        empty=[(0, 3, 4, 2, 2), (2, 0, 4, 2, 2), (2, 3, 0, 2, 2), (2, 3, 4, 0, 0)],
        any_size=st.tuples(st.integers(0, 3), side, side, features, features),
        result=lambda n, s, t, k, m: (n, k + m, s, t),
        small=(2, 7, 5, 4, 6),
        full=(2, 67, 129, 48, 17),
        equal=("native", "triton"),
        gradients=3,
        layouts=tuple(ROW_LAYOUTS),
        by_pixel=True,
    )


SUBJECTS = [
    affine_relu(False),
    affine_relu(True),
    affine_relu_varying("width", rows=False, columns=True, upsample=False),
    affine_relu_varying("height", rows=True, columns=False, upsample=True),
    affine_relu_varying("map", rows=True, columns=True, upsample=False),
    bias_noise_act("bias_noise_act, no noise", 0),
    bias_noise_act("bias_noise_act", 99),
    bias_noise_act("bias_noise_act, shared noise", 1),
    scaled_bias_noise_act(noisy=True),
    scaled_bias_noise_act(noisy=False),
    blur_noise_act(),
    fir_resample(True),
    fir_resample(False),
    glu_layer_norm(),
    phase_epilogue("glu_layer_norm"),
    phase_epilogue("affine_relu"),
    *(mask_composite(logits, output) for logits in (True, False) for output in ("float", "uint8")),
    rearrange(True),
    rearrange(False),
    nearest_centroid("euclidean"),
    nearest_centroid("cosine"),
    feather_blend("float"),
    feather_blend("uint8"),
    *(winograd_conv(upsample, border) for upsample in (False, True) for border in (False, True)),
    strided_winograd_conv(False),
    strided_winograd_conv(True),
    styled_winograd_conv(False),
    styled_winograd_conv(True),
    wave_field(0, 0),
    wave_field(3, 1),
]
ON_GPUS = [subject for subject in SUBJECTS if subject.triton]
DIFFERENTIABLE = [subject for subject in SUBJECTS if subject.gradients]


def each(subjects: list[Subject] = SUBJECTS) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("subject", subjects, ids=lambda subject: subject.name)


def on_each_backend(
    subjects: list[Subject] = SUBJECTS, dtypes: list[torch.dtype] | None = None, without: str = ""
) -> pytest.MarkDecorator:
    """Parametrise with every backend, and with every dtype that it takes if any are named."""
    cases = [
        (subject, backend, dtype)
        for subject in subjects
        for dtype in dtypes or [torch.float32]
        for backend in subject.backends(dtype)
        if backend != without
    ]
    names = [f"{s.name}-{b or 'library'}" + f"-{str(d)[6:]}" * bool(dtypes) for s, b, d in cases]
    if dtypes is None:
        return pytest.mark.parametrize(("subject", "backend"), [case[:2] for case in cases], ids=names)
    return pytest.mark.parametrize(("subject", "backend", "dtype"), cases, ids=names)
