"""What every kernel refuses, and the sentence with which it does."""

import inspect

import pytest
import torch

from zellige import kernels
from zellige.errors import ShapeError

t = torch.zeros
GOOD = {
    "affine_relu": {"x": t(2, 3, 4, 5), "scale": t(2, 3), "shift": t(2, 3)},
    "bias_noise_act": {"x": t(2, 3, 4, 5), "bias": t(3), "noise": t(2, 1, 4, 5), "strength": t(())},
    "blur_noise_act": {"x": t(2, 3, 5, 6), "bias": t(3), "noise": t(2, 1, 4, 5), "strength": t(()), "factor": t(2, 3)},
    "feather_blend": {
        "patches": t(2, 3, 4, 5), "positions": t(2, 2).long(), "window_rows": t(4), "window_columns": t(5),
        "size": (6, 7),
    },
    "fir_resample": {"x": t(2, 3, 4, 4), "up": False},
    "glu_layer_norm": {"x": t(2, 6, 4, 5), "weight": t(3), "bias": t(3)},
    "mask_composite": {"foreground": t(2, 3, 4, 5), "background": t(2, 3, 4, 5), "mask": t(2, 1, 4, 5)},
    "nearest_centroid": {"points": t(7, 5), "centroids": t(3, 5)},
    "phase_epilogue": {"x": t(2, 24, 4, 5), "weight": t(3), "bias": t(3)},
    "rearrange": {"q": t(2, 3, 4), "k": t(2, 5, 4), "v": t(2, 5, 6)},
    "wave_field": {
        "down": t(2, 5, 8), "across": t(2, 3, 7, 14), "noise": t(4, 9, 6), "rows": t(2, 5).long(),
        "columns": t(2, 7).long(), "dtype": torch.bfloat16, "every": 3, "first": 1,
    },
    "winograd_conv": {
        "x": t(2, 3, 4, 5), "matrices": t(1, 16, 16, 32), "outputs": 6, "bias": t(6), "padding": "zeros", "crop": 0,
    },
    "winograd_weight": {"weight": t(6, 3, 3, 3)},
}  # fmt: skip
FLOATS = "float32, float16, bfloat16 or float64"
MAPS = f"it must be [N, C, H, W], {FLOATS}."
GATED = f"it must be [N, 2C, H, W], {FLOATS}."
EIGHT = f"it must be [N, 8C, H, W] for glu_layer_norm, {FLOATS}."
FOUR = f"it must be [N, 4C, H, W] for affine_relu, {FLOATS}."
EVEN = "it must be [N, C, H, W] with even H and W to be halved."
IMAGES = f"it must be [N, C, H, W] with 1 to 4 channels, {FLOATS}."
PATCHES = "it must be [N, C, P, Q] with 1 to 4 channels, float32, float16 or bfloat16."
POINTS = f"it must be [M, D] with D at least 1, {FLOATS}."
CENTROIDS = "it must be [K, 5] with K at least 1, float32, for points of shape [7, 5]."
QUERIES = f"it must be [N, T, Dk], Dk from 1 to 520, {FLOATS}."
KEYS = "it must be [N, S, Dk], S of at least 1."
NOISE = "it must be [2, 1, 4, 5] or [1, 1, 4, 5], float32, for x of shape [2, 3, 4, 5]."
STRENGTH = "it must be [] or [1], float32, for x of shape [2, 3, 4, 5]."
EPS = "it must be a finite number above 0."
SIZE = "it must be (height, width), each from 1 to 2147483520."
FILLED = f"it must be [N, C, H, W], C, H and W at least 1, {FLOATS}."
MATRICES = "it must be what winograd_weight returns for x of shape [2, 3, 4, 5] float32 and 6 outputs."
WAVES, ACROSS = "it must be [N, S, 2K], float32 or float64.", "it must be [N, R, T, 2K + L], R of at least 1."
PLACES = "they must lie from 0 to 2, the rows of across."
KERNEL = f"[K, C, 3, 3] or [K, C, 4, 4], K and C at least 1, {FLOATS}."
KERNEL_3X3 = f"[K, C, 3, 3], K and C at least 1, {FLOATS}."
KERNEL_4X4 = f"[C, K, 3, 3] or [C, K, 4, 4], K and C at least 1, {FLOATS}."
STRIDED = {"matrices": t(1, 16, 64, 32)}
FIXED = "they must be 'zeros' and 0 for a stride of 2."
CROP = "it must be 0 or more, and leave at least one of 4x5 pixels."
FACTORS = "it must be [2, 3] or [2, 3, 1 or 4, 1 or 5], float32"
MAP, IMAGE = "x of shape [2, 3, 4, 5]", "foreground of shape [2, 3, 4, 5]"

REFUSED = [
    ("affine_relu", {"x": t(3, 4, 5)}, f"x is [3, 4, 5] float32; {MAPS}"),
    ("affine_relu", {"x": t(2, 3, 4, 5).int()}, f"x is [2, 3, 4, 5] int32; {MAPS}"),
    *(("affine_relu", {"scale": t(*size)}, f"scale is {list(size)} float32; {FACTORS}, for {MAP}.")
      for size in ((3,), (1, 3), (2, 3, 5), (2, 3, 2, 5), (2, 3, 1, 10), (1, 3, 1, 5), (2, 1, 4, 5), (2, 3, 4, 5, 1))),
    ("affine_relu", {"scale": t(2, 3, 1, 5).half()}, f"scale is [2, 3, 1, 5] float16; {FACTORS}, for {MAP}."),
    ("affine_relu", {"x": t(2, 3, 1, 5).half(), "scale": t(2, 3, 2, 5)},
     "scale is [2, 3, 2, 5] float32; it must be [2, 3] or [2, 3, 1, 1 or 5], float32 or float16, "
     "for x of shape [2, 3, 1, 5]."),
    ("affine_relu", {"shift": t(2, 3).half()},
     "shift is [2, 3] float16; it must be [2, 3] float32 for scale of shape [2, 3]."),
    ("affine_relu", {"shift": t(2, 3, 1, 1)},
     "shift is [2, 3, 1, 1] float32; it must be [2, 3] float32 for scale of shape [2, 3]."),
    ("affine_relu", {"scale": t(2, 3, 1, 5), "shift": t(2, 3, 4, 5)},
     "shift is [2, 3, 4, 5] float32; it must be [2, 3, 1, 5] float32 for scale of shape [2, 3, 1, 5]."),
    ("affine_relu", {"x": t(2, 3, 4, 5).half(), "shift": t(2, 3).double()},
     "shift is [2, 3] float64; it must be [2, 3] float32 or float16 for scale of shape [2, 3]."),
    ("bias_noise_act", {"x": t(3, 4, 5)}, f"x is [3, 4, 5] float32; {MAPS}"),
    ("bias_noise_act", {"x": t(2, 3, 4, 5).int()}, f"x is [2, 3, 4, 5] int32; {MAPS}"),
    ("bias_noise_act", {"bias": t(4)}, f"bias is [4] float32; it must be [3] float32 for {MAP}."),
    ("bias_noise_act", {"bias": t(3).half()}, f"bias is [3] float16; it must be [3] float32 for {MAP}."),
    ("bias_noise_act", {"noise": None}, "strength is given and noise is None; give both or neither."),
    ("bias_noise_act", {"strength": None}, "noise is given and strength is None; give both or neither."),
    ("bias_noise_act", {"noise": t(2, 3, 4, 5)}, f"noise is [2, 3, 4, 5] float32; {NOISE}"),
    ("bias_noise_act", {"noise": t(2, 1, 4, 5).half()}, f"noise is [2, 1, 4, 5] float16; {NOISE}"),
    ("bias_noise_act", {"factor": t(3)}, f"factor is [3] float32; it must be [2, 3] float32 for {MAP}."),
    ("bias_noise_act", {"clamp": 0.0}, "clamp is 0.0; it must be a number above 0, or None."),
    ("bias_noise_act", {"strength": t(3)}, f"strength is [3] float32; {STRENGTH}"),
    ("bias_noise_act", {"x": t(2, 3, 4, 5).half(), "strength": t(1).bfloat16()},
     f"strength is [1] bfloat16; it must be [] or [1], float32 or float16, for {MAP}."),
    ("feather_blend", {"patches": t(3, 4, 5)}, f"patches is [3, 4, 5] float32; {PATCHES}"),
    ("feather_blend", {"patches": t(2, 5, 4, 5)}, f"patches is [2, 5, 4, 5] float32; {PATCHES}"),
    ("feather_blend", {"patches": t(2, 0, 4, 5)}, f"patches is [2, 0, 4, 5] float32; {PATCHES}"),
    ("feather_blend", {"patches": t(2, 3, 4, 5).double()}, f"patches is [2, 3, 4, 5] float64; {PATCHES}"),
    ("feather_blend", {"patches": t(2, 3, 4, 0)},
     "patches is [2, 3, 4, 0] float32; it must be at least one row and one column."),
    ("feather_blend", {"positions": t(3, 2).long()},
     "positions is [3, 2] int64; it must be [2, 2] int64 for patches of shape [2, 3, 4, 5]."),
    ("feather_blend", {"positions": t(2, 2)},
     "positions is [2, 2] float32; it must be [2, 2] int64 for patches of shape [2, 3, 4, 5]."),
    ("feather_blend", {"window_rows": t(5)},
     "window_rows is [5] float32; it must be [4] float32 for patches of shape [2, 3, 4, 5]."),
    ("feather_blend", {"window_columns": t(5).half()},
     "window_columns is [5] float16; it must be [5] float32 for patches of shape [2, 3, 4, 5]."),
    ("feather_blend", {"size": (0, 7)}, f"size is (0, 7); {SIZE}"),
    ("feather_blend", {"size": (6, 2**31 - 127)}, f"size is (6, 2147483521); {SIZE}"),
    ("feather_blend", {"size": (6,)}, f"size is (6,); {SIZE}"),
    ("feather_blend", {"output": "bytes"}, "output is 'bytes'; it must be 'uint8' or 'float'."),
    ("fir_resample", {"x": t(3, 4, 4)}, f"x is [3, 4, 4] float32; {MAPS}"),
    ("fir_resample", {"x": t(2, 3, 4, 4).int()}, f"x is [2, 3, 4, 4] int32; {MAPS}"),
    ("fir_resample", {"x": t(2, 3, 5, 4)}, f"x is [2, 3, 5, 4] float32; {EVEN}"),
    ("fir_resample", {"x": t(2, 3, 4, 5)}, f"x is [2, 3, 4, 5] float32; {EVEN}"),
    ("glu_layer_norm", {"x": t(6, 4, 5)}, f"x is [6, 4, 5] float32; {GATED}"),
    ("glu_layer_norm", {"x": t(2, 7, 4, 5)}, f"x is [2, 7, 4, 5] float32; {GATED}"),
    ("glu_layer_norm", {"x": t(2, 6, 4, 5).int()}, f"x is [2, 6, 4, 5] int32; {GATED}"),
    ("glu_layer_norm", {"weight": t(6)},
     "weight is [6] float32; it must be [3] float32 for x of shape [2, 6, 4, 5]."),
    ("glu_layer_norm", {"bias": t(3).half()},
     "bias is [3] float16; it must be [3] float32 for x of shape [2, 6, 4, 5]."),
    *(("glu_layer_norm", {"eps": eps}, f"eps is {eps}; {EPS}") for eps in (0.0, -1e-5, float("nan"), float("inf"))),
    ("mask_composite", {"foreground": t(3, 4, 5)}, f"foreground is [3, 4, 5] float32; {IMAGES}"),
    ("mask_composite", {"foreground": t(2, 3, 4, 5).int()}, f"foreground is [2, 3, 4, 5] int32; {IMAGES}"),
    ("mask_composite", {"foreground": t(2, 5, 4, 5)}, f"foreground is [2, 5, 4, 5] float32; {IMAGES}"),
    ("mask_composite", {"background": t(2, 1, 4, 5)},
     f"background is [2, 1, 4, 5] float32; it must be [2, 3, 4, 5] float32 for {IMAGE}."),
    ("mask_composite", {"mask": t(2, 3, 4, 5)},
     f"mask is [2, 3, 4, 5] float32; it must be [2, 1, 4, 5] float32 for {IMAGE}."),
    ("mask_composite", {"mask": t(2, 1, 4, 5).half()},
     f"mask is [2, 1, 4, 5] float16; it must be [2, 1, 4, 5] float32 for {IMAGE}."),
    ("mask_composite", {"output": "int8"}, "output is 'int8'; it must be 'float' or 'uint8'."),
    ("nearest_centroid", {"points": t(7)}, f"points is [7] float32; {POINTS}"),
    ("nearest_centroid", {"points": t(7, 0)}, f"points is [7, 0] float32; {POINTS}"),
    ("nearest_centroid", {"points": t(7, 5).int()}, f"points is [7, 5] int32; {POINTS}"),
    ("nearest_centroid", {"centroids": t(0, 5)}, f"centroids is [0, 5] float32; {CENTROIDS}"),
    ("nearest_centroid", {"centroids": t(3, 4)}, f"centroids is [3, 4] float32; {CENTROIDS}"),
    ("nearest_centroid", {"centroids": t(5)}, f"centroids is [5] float32; {CENTROIDS}"),
    ("nearest_centroid", {"centroids": t(3, 5).half()}, f"centroids is [3, 5] float16; {CENTROIDS}"),
    ("nearest_centroid", {"metric": "manhattan"}, "metric is 'manhattan'; it must be 'euclidean' or 'cosine'."),
    ("phase_epilogue", {"x": t(24, 4, 5)}, f"x is [24, 4, 5] float32; {EIGHT}"),
    ("phase_epilogue", {"x": t(2, 20, 4, 5)}, f"x is [2, 20, 4, 5] float32; {EIGHT}"),
    ("phase_epilogue", {"x": t(2, 24, 4, 5).int()}, f"x is [2, 24, 4, 5] int32; {EIGHT}"),
    ("phase_epilogue", {"x": t(2, 22, 4, 5), "activation": "affine_relu"}, f"x is [2, 22, 4, 5] float32; {FOUR}"),
    ("phase_epilogue", {"weight": t(6)},
     "weight is [6] float32; it must be [3] float32 for x of shape [2, 24, 4, 5]."),
    ("phase_epilogue", {"activation": "affine_relu"},
     "weight is [3] float32; it must be [2, 6] float32 for x of shape [2, 24, 4, 5]."),
    *(("phase_epilogue", {"eps": eps}, f"eps is {eps}; {EPS}") for eps in (0.0, -1e-5, float("nan"), float("inf"))),
    ("phase_epilogue", {"activation": "relu"},
     "activation is 'relu'; it must be one of 'glu_layer_norm', 'affine_relu'."),
    ("rearrange", {"q": t(3, 4)}, f"q is [3, 4] float32; {QUERIES}"),
    ("rearrange", {"q": t(2, 3, 4).int()}, f"q is [2, 3, 4] int32; {QUERIES}"),
    ("rearrange", {"q": t(2, 3, 0), "k": t(2, 5, 0)}, f"q is [2, 3, 0] float32; {QUERIES}"),
    ("rearrange", {"q": t(2, 3, 521), "k": t(2, 5, 521)}, f"q is [2, 3, 521] float32; {QUERIES}"),
    ("rearrange", {"k": t(2, 0, 4)}, f"k is [2, 0, 4] float32; {KEYS}"),
    ("rearrange", {"k": t(5, 4)}, f"k is [5, 4] float32; {KEYS}"),
    ("rearrange", {"k": t(2, 5, 3)}, "k is [2, 5, 3] float32; it must be [2, 5, 4] float32 for q of shape [2, 3, 4]."),
    ("rearrange", {"k": t(2, 5, 4).half()},
     "k is [2, 5, 4] float16; it must be [2, 5, 4] float32 for q of shape [2, 3, 4]."),
    ("rearrange", {"v": t(2, 5, 521)}, "v is [2, 5, 521] float32; it must be [N, S, Dv], Dv from 1 to 520."),
    ("rearrange", {"v": t(2, 4, 6)}, "v is [2, 4, 6] float32; it must be [2, 5, 6] float32 for k of shape [2, 5, 4]."),
    *(("wave_field", {"down": down}, f"down is {list(down.shape)} {str(down.dtype)[6:]}; {WAVES}")
      for down in (t(5, 8), t(2, 5, 7), t(2, 5, 8).half(), t(2, 5, 8).int())),
    ("wave_field", {"noise": t(4, 6)}, "noise is [4, 6] float32; it must be [H, W, L] float32, as down."),
    ("wave_field", {"noise": t(4, 9, 6).half()}, "noise is [4, 9, 6] float16; it must be [H, W, L] float32, as down."),
    ("wave_field", {"across": t(2, 7, 14)}, f"across is [2, 7, 14] float32; {ACROSS}"),
    ("wave_field", {"across": t(2, 0, 7, 14)}, f"across is [2, 0, 7, 14] float32; {ACROSS}"),
    ("wave_field", {"across": t(2, 3, 7, 8)},
     "across is [2, 3, 7, 8] float32; it must be [2, 3, 7, 14] float32 for down of shape [2, 5, 8]."),
    ("wave_field", {"across": t(1, 3, 7, 14)},
     "across is [1, 3, 7, 14] float32; it must be [2, 3, 7, 14] float32 for down of shape [2, 5, 8]."),
    ("wave_field", {"across": t(2, 3, 7, 14).double()},
     "across is [2, 3, 7, 14] float64; it must be [2, 3, 7, 14] float32 for down of shape [2, 5, 8]."),
    ("wave_field", {"rows": t(2, 7).long()},
     "rows is [2, 7] int64; it must be [2, 5] int64 for down of shape [2, 5, 8]."),
    ("wave_field", {"rows": t(2, 5).int()},
     "rows is [2, 5] int32; it must be [2, 5] int64 for down of shape [2, 5, 8]."),
    ("wave_field", {"columns": t(2, 5).long()},
     "columns is [2, 5] int64; it must be [2, 7] int64 for across of shape [2, 3, 7, 14]."),
    *(("wave_field", {"dtype": dtype},
       f"dtype is {str(dtype)[6:]}; it must be float32, float16 or bfloat16 for float32 arguments.")
      for dtype in (torch.float64, torch.int32)),
    ("wave_field", {"every": 0}, "every is 0; it must be at least 1."),
    ("wave_field", {"first": 0}, f"rows lie at -0.333333 to 1 for every = 3 and first = 0; {PLACES}"),
    ("wave_field", {"first": 4}, f"rows lie at 1 to 2.33333 for every = 3 and first = 4; {PLACES}"),
    ("wave_field", {"every": 1}, f"rows lie at 1 to 5 for every = 1 and first = 1; {PLACES}"),
    ("winograd_conv", {"x": t(3, 4, 5)}, f"x is [3, 4, 5] float32; {FILLED}"),
    ("winograd_conv", {"x": t(2, 3, 4, 5).int()}, f"x is [2, 3, 4, 5] int32; {FILLED}"),
    *(("winograd_conv", {"x": t(*size)}, f"x is {list(size)} float32; {FILLED}")
      for size in ((2, 0, 4, 5), (2, 3, 0, 5), (2, 3, 4, 0))),
    ("winograd_conv", {"outputs": 0}, "outputs is 0; it must be at least 1."),
    ("winograd_conv", {"outputs": -32}, "outputs is -32; it must be at least 1."),
    ("winograd_conv", {"matrices": t(6, 3, 3, 3)}, f"matrices is [6, 3, 3, 3] float32; {MATRICES}"),
    ("winograd_conv", {"matrices": t(16, 16, 32)}, f"matrices is [16, 16, 32] float32; {MATRICES}"),
    ("winograd_conv", {"matrices": t(2, 16, 16, 32)}, f"matrices is [2, 16, 16, 32] float32; {MATRICES}"),
    ("winograd_conv", {"matrices": t(1, 9, 32, 32)}, f"matrices is [1, 9, 32, 32] float32; {MATRICES}"),
    ("winograd_conv", {"matrices": t(1, 16, 8, 64).bfloat16()}, f"matrices is [1, 16, 8, 64] bfloat16; {MATRICES}"),
    ("winograd_conv", {"matrices": t(1, 16, 16, 32).double()}, f"matrices is [1, 16, 16, 32] float64; {MATRICES}"),
    ("winograd_conv", {"outputs": 33},
     f"matrices is [1, 16, 16, 32] float32; {MATRICES.replace('6 outputs', '33 outputs')}"),
    ("winograd_conv", {"bias": t(5)}, f"bias is [5] float32; it must be [6] float32 for {MAP}."),
    ("winograd_conv", {"bias": t(6).half()}, f"bias is [6] float16; it must be [6] float32 for {MAP}."),
    ("winograd_conv", {"bias": t(1, 6, 3, 3)},
     f"bias is [1, 6, 3, 3] float32; it must be [2, 6, 3, 3] float32 for {MAP}."),
    ("winograd_conv", {"x": t(2, 3, 1, 5), "bias": t(2, 6, 3, 3)},
     "x is [2, 3, 1, 5] float32; "
     "it must be a map whose result has 2 pixels a side or more, for a bias of [2, 6, 3, 3]."),
    ("winograd_conv", {"padding": "reflect"}, "padding is 'reflect'; it must be 'zeros' or 'replicate'."),
    ("winograd_conv", {"crop": -1}, f"crop is -1; {CROP}"),
    ("winograd_conv", {"crop": 2}, f"crop is 2; {CROP}"),
    ("winograd_conv", {"crop": 4, "matrices": t(1, 9, 16, 32)}, f"crop is 4; {CROP.replace('4x5', '8x10')}"),
    ("winograd_conv", {"x": []}, "x has 0 maps; it must be a map, or 1 to 4."),
    ("winograd_conv", {"x": [t(2, 3, 4, 5)] * 5}, "x has 5 maps; it must be a map, or 1 to 4."),
    ("winograd_conv", {"x": [t(2, 1, 4, 5), t(2, 4, 5)]}, f"x is [2, 4, 5] float32; {FILLED}"),
    *(("winograd_conv", {"x": [t(2, 1, 4, 5), t(*size)]},
       f"x[1:] is {list(size)} float32; it must be {[2, size[1], 4, 5]} float32 for x[0] of shape [2, 1, 4, 5].")
      for size in ((3, 2, 4, 5), (2, 2, 3, 5), (2, 2, 4, 6))),
    ("winograd_conv", {"x": [t(2, 1, 4, 5), t(2, 1, 4, 5), t(2, 1, 4, 5).half()]},
     "x[1:] is [2, 1, 4, 5] float16; it must be [2, 1, 4, 5] float32 for x[0] of shape [2, 1, 4, 5]."),
    ("winograd_conv", {"x": [t(2, 1, 4, 5), t(2, 2, 4, 5, device="meta")]},
     "x[1:] is on meta but x[0] is on cpu; move it there."),
    ("winograd_conv", {"x": [t(2, 1, 4, 5), t(2, 2, 4, 5)], "matrices": t(1, 9, 32, 32)},
     f"matrices is [1, 9, 32, 32] float32; {MATRICES}"),
    *(("winograd_conv", STRIDED | {"x": t(*size)},
       f"x is {list(size)} float32; it must be [N, C, H, W], H and W at least 2 for a kernel of stride 2.")
      for size in ((2, 3, 1, 5), (2, 3, 4, 1))),
    *(("winograd_conv", {"matrices": matrices, "bias": t(2, 6, 3, 3)},
       f"bias is [2, 6, 3, 3] float32; it must be [6] float32 for {MAP}.")
      for matrices in (t(1, 16, 64, 32), t(4, 16, 16, 32), t(1, 4, 64, 32), t(4, 9, 16, 32))),
    *(("winograd_conv", {"matrices": matrices, "padding": "replicate"},
       f"padding is 'replicate' and crop is 0; {FIXED}") for matrices in (t(1, 16, 64, 32), t(4, 16, 16, 32))),
    *(("winograd_conv", {"matrices": matrices, "crop": 1}, f"padding is 'zeros' and crop is 1; {FIXED}")
      for matrices in (t(1, 9, 64, 32), t(4, 4, 16, 32))),
    *(("winograd_weight", {"weight": t(*size)}, f"weight is {list(size)} float32; it must be {KERNEL}")
      for size in ((6, 3, 3), (6, 3, 3, 5), (6, 3, 1, 1), (0, 3, 3, 3), (6, 0, 3, 3), (6, 3, 4, 3), (6, 0, 4, 4))),
    ("winograd_weight", {"weight": t(6, 3, 3, 3).int()}, f"weight is [6, 3, 3, 3] int32; it must be {KERNEL}"),
    ("winograd_weight", {"weight": t(6, 3, 4, 4), "upsample": True},
     f"weight is [6, 3, 4, 4] float32; it must be {KERNEL_3X3}"),
    *(("winograd_weight", {"weight": t(*size), "transposed": True},
       f"weight is {list(size)} float32; it must be {KERNEL_4X4}") for size in ((6, 3, 5, 5), (0, 3, 4, 4))),
    ("winograd_weight", {"weight": t(6, 3, 3, 3), "transposed": True, "cells": 3}, "cells is 3; it must be 1 or 2."),
    ("winograd_conv", {"style": t(2, 4)}, f"style is [2, 4] float32; it must be [2, 3] float32 for {MAP}."),
    ("winograd_conv", {"factor": t(2, 3)},
     "factor is [2, 3] float32; it must be [2, 6] float32 for x of shape [2, 6, 4, 5]."),
    ("blur_noise_act", {"x": t(2, 3, 1, 6)},
     f"x is [2, 3, 1, 6] float32; it must be [N, C, H + 1, W + 1], sides at least 2, {FLOATS}."),
    ("blur_noise_act", {"bias": t(4)}, "bias is [4] float32; it must be [3] float32 for x of shape [2, 3, 5, 6]."),
    ("winograd_weight", {"weight": t(6, 3, 4, 4), "upsample": True, "transposed": True},
     "upsample is for a 3x3 kernel and transposed for one of stride 2; choose one of them."),
    *(("winograd_weight", {"weight": t(6, 3, 4, 4), "cells": cells}, f"cells is {cells}; it must be 1, 2 or 3.")
      for cells in (0, 4)),
]  # fmt: skip
ELSEWHERE = [
    (kernel, name)
    for kernel, good in GOOD.items()
    for name in [name for name, value in good.items() if isinstance(value, torch.Tensor)][1:]
]


@pytest.mark.parametrize("kernel", GOOD)
def test_what_is_refused_would_else_be_taken(kernel):
    result = getattr(kernels, kernel)(**GOOD[kernel])
    assert isinstance(result, torch.Tensor)
    assert set(GOOD[kernel]) <= set(inspect.signature(getattr(kernels, kernel)).parameters)


@pytest.mark.parametrize(("kernel", "changed", "sentence"), REFUSED)
def test_bad_argument_is_named(kernel, changed, sentence):
    with pytest.raises(ShapeError) as error:
        getattr(kernels, kernel)(**(GOOD[kernel] | changed))
    assert str(error.value) == sentence


@pytest.mark.parametrize(("kernel", "name"), ELSEWHERE)
def test_an_argument_on_another_device_is_named(kernel, name):
    with pytest.raises(ShapeError) as error:
        getattr(kernels, kernel)(**(GOOD[kernel] | {name: GOOD[kernel][name].to("meta")}))
    others = {("rearrange", "v"): "k", ("affine_relu", "shift"): "scale", ("wave_field", "columns"): "across"}
    other = others.get((kernel, name), next(iter(GOOD[kernel])))
    verb = "are" if other.endswith("s") else "is"
    assert str(error.value) == f"{name} is on meta but {other} {verb} on cpu; move it there."
