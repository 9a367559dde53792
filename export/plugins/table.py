"""The table of plugins: which tensors, attributes and sizes of a node become which arguments of a Triton kernel.

Names are those of the kernel's arguments in the manifest of `zellige.kernels.triton.compile`.
A plugin launches one kernel. A node of several launches becomes several plugins, which hand on tensors:

    GluLayerNorm  = GluMoments -> GluCombine -> GluNormalise
    PhaseEpilogue = GluMoments -> GluCombine -> PhaseGlu, or PhaseAffine

This file needs neither torch, Triton nor TensorRT: sizes are numbers or symbolic expressions, under `+`, `*` and `//`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["MOMENTS", "PART", "PLUGINS", "Attributes", "Plugin", "Shapes", "rounded_up"]

Shapes = Mapping[str, Sequence[Any]]
Attributes = Mapping[str, float]
Sizes = Callable[[Shapes, Attributes, str], dict[str, Any]]

MOMENTS = 4  # count, mean, the mean's rounding error, squares around the mean
PART = 4096  # values whose statistics one program takes


@dataclass(frozen=True)
class Plugin:
    """One kernel as TensorRT sees it.

    Attributes:
        name: of the ONNX node.
        kernel: folder in `zellige.kernels`.
        variant: name of the kernel's variant, in which {dtype} and {layout} stand for the plugin's; None if no variant
            is built for all widths.
        inputs: names, in order. The first one's dtype is that of the plugin.
        output: name.
        shape: makes the output's shape from the inputs' shapes and the attributes.
        sizes: makes the int32 arguments, and all other numbers that the grid needs, by name, for a layout.
        maps: inputs and outputs that are channels-last together; all others lie by plane.
        factors: inputs that are float32 in every dtype.
        output_dtype: dtype of the output, if it is not the plugin's.
        attributes: types of the node's attributes, by name.
        constants: makes the arguments that are constants of the kernel from the attributes; None drops an argument.
    """

    name: str
    kernel: str
    variant: str | None
    inputs: tuple[str, ...]
    output: str
    shape: Callable[[Shapes, Attributes], tuple[Any, ...]]
    sizes: Sizes
    maps: tuple[str, ...] = ()
    factors: tuple[str, ...] = ()
    output_dtype: str | None = None
    attributes: Mapping[str, type[int] | type[float]] = field(default_factory=dict)
    constants: Callable[[Attributes], dict[str, int | float | bool | None]] = lambda attributes: {}

    def dtype(self, tensor: str, of_plugin: str) -> str:
        """Return the dtype of an input or of the output, given that of the plugin."""
        if tensor == self.output and self.output_dtype is not None:
            return self.output_dtype
        return "float32" if tensor in self.factors else of_plugin


def rounded_up(size: Any, divisor: int) -> Any:
    """Return the quotient, rounded up. It works on expressions too, which lack a ceiling in some versions."""
    return size if divisor == 1 else (size + (divisor - 1)) // divisor


def _moments_shape(shapes: Shapes, attributes: Attributes) -> tuple[Any, ...]:
    n, channels, h, w = shapes["x"]
    phases = int(attributes["phases"])
    return MOMENTS, n, rounded_up(channels // (2 * phases) * h * w, PART) * phases


def _moments_sizes(shapes: Shapes, attributes: Attributes, layout: str) -> dict[str, Any]:
    n, channels, h, w = shapes["x"]
    phases = int(attributes["phases"])
    half = channels // (2 * phases)  # the other half is the gate
    if layout == "channels_last":
        return {"samples": n, "runs": h * w * phases, "length": half}
    return {"samples": n, "runs": phases, "length": half * h * w}


def _combine_sizes(shapes: Shapes, attributes: Attributes, layout: str) -> dict[str, Any]:
    _, samples, parts = shapes["moments"]
    return {"samples": samples, "parts": parts}


def _map_sizes(divisor: int) -> Sizes:
    def sizes(shapes: Shapes, attributes: Attributes, layout: str) -> dict[str, Any]:
        n, channels, h, w = shapes["x"]
        return {"samples": n, "channels": channels // divisor, "pixels": h * w, "columns": w}

    return sizes


def _phase_shape(divisor: int) -> Callable[[Shapes, Attributes], tuple[Any, ...]]:
    def shape(shapes: Shapes, attributes: Attributes) -> tuple[Any, ...]:
        n, channels, h, w = shapes["x"]
        return n, channels // divisor, h * 2, w * 2

    return shape


def _normalise_shape(shapes: Shapes, attributes: Attributes) -> tuple[Any, ...]:
    n, channels, h, w = shapes["x"]
    return n, channels // 2, h, w


def _affine_shape(shapes: Shapes, attributes: Attributes) -> tuple[Any, ...]:
    n, channels, h, w = shapes["x"]
    factor = 2 if attributes["upsample"] else 1
    return n, channels, h * factor, w * factor


def _image_shape(shapes: Shapes, attributes: Attributes) -> tuple[Any, ...]:
    return tuple(shapes["foreground"])


def _bytes_shape(shapes: Shapes, attributes: Attributes) -> tuple[Any, ...]:
    n, channels, h, w = shapes["foreground"]
    return n, h, w, channels


def _image_sizes(by_value: bool) -> Sizes:
    def sizes(shapes: Shapes, attributes: Attributes, layout: str) -> dict[str, Any]:
        n, channels, h, w = shapes["foreground"]
        if by_value or layout == "channels_last":
            return {"samples": n, "values": h * w * channels}
        return {"samples": n, "pixels": h * w}

    return sizes


def _logits(attributes: Attributes) -> dict[str, int | float | bool | None]:
    return {"LOGITS": bool(attributes["logits"])}


def _rearranged_shape(shapes: Shapes, attributes: Attributes) -> tuple[Any, ...]:
    return shapes["q"][0], shapes["q"][1], shapes["v"][2]


def _rearranged_sizes(shapes: Shapes, attributes: Attributes, layout: str) -> dict[str, Any]:
    return {"samples": shapes["q"][0], "tokens": shapes["q"][1], "keys": shapes["k"][1]}


_IMAGES = ("foreground", "background", "mask")

PLUGINS = (
    Plugin(
        "GluMoments", "glu_layer_norm", "glu_layer_norm_moments_{dtype}_{layout}", ("x",), "moments",
        _moments_shape, _moments_sizes, maps=("x",), output_dtype="float32", attributes={"phases": int},
    ),
    Plugin(
        "GluCombine", "glu_layer_norm", "glu_layer_norm_combine", ("moments",), "normal",
        lambda shapes, attributes: (shapes["moments"][1], 3), _combine_sizes,
        factors=("moments",), output_dtype="float32", attributes={"eps": float},
        constants=lambda attributes: {"eps": attributes["eps"]},
    ),
    Plugin(
        "GluNormalise", "glu_layer_norm", "glu_layer_norm_forward_{dtype}_{layout}",
        ("x", "weight", "bias", "normal"), "y", _normalise_shape, _map_sizes(2),
        maps=("x", "y"), factors=("weight", "bias", "normal"),
    ),
    Plugin(
        "PhaseGlu", "phase_epilogue", "phase_epilogue_glu_layer_norm_{dtype}_{layout}",
        ("x", "weight", "bias", "normal"), "y", _phase_shape(8), _map_sizes(8),
        maps=("x", "y"), factors=("weight", "bias", "normal"),
    ),
    Plugin(
        "PhaseAffine", "phase_epilogue", "phase_epilogue_affine_relu_{dtype}_{layout}",
        ("x", "weight", "bias"), "y", _phase_shape(4), _map_sizes(4),
        maps=("x", "y"), factors=("weight", "bias"), constants=lambda attributes: {"normal": None},
    ),
    Plugin(
        "AffineRelu", "affine_relu", "affine_relu_{dtype}_{layout}", ("x", "scale", "shift"), "y",
        _affine_shape, _map_sizes(1), maps=("x", "y"), factors=("scale", "shift"), attributes={"upsample": int},
        constants=lambda attributes: {"UPSAMPLE": bool(attributes["upsample"])},
    ),
    Plugin(
        "MaskComposite", "mask_composite", "mask_composite_{dtype}_{layout}", _IMAGES, "y",
        _image_shape, _image_sizes(by_value=False), maps=("foreground", "background", "y"),
        attributes={"logits": int}, constants=_logits,
    ),
    # Bytes leave as float16, because plugins of TensorRT have no uint8, and no other dtype has an exact and supported
    # cast to it. float16 holds 0 to 255. A Cast follows.
    Plugin(
        "MaskCompositeBytes", "mask_composite", "mask_composite_{dtype}_{layout}_bytes", _IMAGES, "y",
        _bytes_shape, _image_sizes(by_value=True), maps=("foreground", "background"), output_dtype="float16",
        attributes={"logits": int}, constants=_logits,
    ),
    Plugin(
        "Rearrange", "rearrange", None, ("q", "k", "v"), "y", _rearranged_shape, _rearranged_sizes,
        attributes={"scale": float},
        constants=lambda attributes: {"scale": attributes["scale"], "log_sums": None},
    ),
)  # fmt: skip
