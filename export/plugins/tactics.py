"""The kernels that may serve a plugin at known shapes, from which tuning chooses, and the code of each."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np

from zellige.errors import DeviceError, MissingExtraError

from .ptx import renamed, with_visible_parameters
from .table import PART, Attributes, Plugin, Shapes, rounded_up

__all__ = ["PORTABLE", "Code", "codes", "parts_across_channels", "tactics"]

# The driver assembles PTX of this architecture for every newer one.
PORTABLE = 80
# The version of CUDA 12.0, so that drivers and engines older than Triton read it.
_PTX_VERSION = 80
# Bytes of shared memory that every launch has. A plugin cannot ask for more.
_SHARED = 48 * 2**10
_POINTERS = {"float32": "*fp32", "float16": "*fp16", "bfloat16": "*bf16"}


@dataclass(frozen=True)
class Code:
    """A kernel in the form that an engine takes.

    Attributes:
        entry: an entry of the manifest of compiled kernels, under the code's own name, without `hidden_pointers`.
        ptx: PTX for `PORTABLE`, whose parameters are the arguments of `entry`.
    """

    entry: dict[str, Any]
    ptx: str


def tactics(plugin: Plugin, dtype: str, layout: str, shapes: Shapes, attributes: Attributes) -> list[Any]:
    """Return the variants that can serve a plugin, each once; none if there is no kernel for the layout.

    Args:
        plugin: a plugin of the table.
        dtype: of its first input: "float32", "float16" or "bfloat16"; the others follow from it.
        layout: "planes" or "channels_last".
        shapes: shapes of the inputs, by name; the batch is -1 if it is not known.
        attributes: attributes of the node.

    Raises:
        MissingExtraError: Triton is not installed.
    """
    try:
        import triton  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("triton", "compiling kernels for TensorRT", "cuda") from error
    if plugin.variant is None:
        found = _of_rows(dtype, shapes)
    else:
        sizes = plugin.sizes(shapes, attributes, layout)
        found = list(_configured(_fitting(plugin, dtype, layout, sizes), layout, shapes, sizes, attributes))
    constants = {name: _single(value) for name, value in plugin.constants(attributes).items()}
    return _distinct([_with_constants(plugin, variant, constants, dtype, shapes) for variant in found])


def codes(plugin: Plugin, dtype: str, layout: str, shapes: Shapes, attributes: Attributes) -> list[Code]:
    """Compile the variants of `tactics`, and keep those that launch on every device, in the same order.

    Raises:
        DeviceError: a variant does not compile, or Triton interprets kernels in this process.
        MissingExtraError: Triton is not installed.
    """
    found = [_code(plugin.kernel, variant) for variant in tactics(plugin, dtype, layout, shapes, attributes)]
    return [code for code in found if code.entry["shared_bytes"] <= _SHARED]


def parts_across_channels(runs: int, length: int, phases: int) -> tuple[int, int] | None:
    """Return a part [RUNS, LENGTH] that cuts a channels-last map into as many parts as an NCHW map, or None.

    The numbers must be equal, because the tensor between two plugins has one shape in both memory orders. Runs of 128
    channels come first, as in the kernel's own launch.

    Args:
        runs: pixels of all phases.
        length: channels of a run.
        phases: number of phases of the map.
    """
    expected = rounded_up(runs // phases * length, PART) * phases
    for across in (128, 64, 32, 16, 256, 512, 1024, 2048, 4096):
        down = PART // across
        while down:
            if rounded_up(runs, down) * rounded_up(length, across) == expected:
                return down, across
            down //= 2
    return None


def _fitting(plugin: Plugin, dtype: str, layout: str, sizes: dict[str, Any]) -> Any:
    """Return the variant of the table, with wide loads if the sizes allow; tensors begin at multiples of 256 anyway."""
    from ...kernels.triton.variants import variants_by_name

    assert plugin.variant is not None
    built = variants_by_name(plugin.kernel)
    name = plugin.variant.format(dtype=dtype, layout=layout)
    wide = built.get(f"{name}_wide")
    if wide is not None and all(sizes[size] % 16 == 0 for size in wide.divisible if size in sizes):
        return wide
    return built[name]


def _configured(
    variant: Any, layout: str, shapes: Shapes, sizes: dict[str, Any], attributes: Attributes
) -> Iterator[Any]:
    """Yield the variant in every configuration from which a launch in Python chooses."""
    from ...kernels.triton.tiles import tile
    from ...kernels.triton.tuning import STREAMING

    if "RUNS" in variant.constants and layout == "channels_last":
        part = parts_across_channels(sizes["runs"], sizes["length"], int(attributes["phases"]))
        if part is not None:
            yield replace(variant, constants={**variant.constants, "RUNS": part[0], "LENGTH": part[1]})
    elif "PIXELS" in variant.constants:
        for config in STREAMING:
            values = config.kwargs["VALUES"]
            pixels, channels = tile(layout == "channels_last", sizes["pixels"], sizes["channels"], values)
            constants = {**variant.constants, "PIXELS": pixels, "CHANNELS": channels}
            yield replace(variant, constants=constants, warps=config.num_warps)
    elif "VALUES" in variant.constants:
        for config in STREAMING:
            constants = {**variant.constants, **config.kwargs, "CHANNELS": shapes["foreground"][1]}
            yield replace(variant, constants=constants, warps=config.num_warps)
    else:
        yield variant


def _of_rows(dtype: str, shapes: Shapes) -> list[Any]:
    from ...kernels.rearrange.triton import configured

    return configured("forward", dtype, shapes["q"][2], shapes["v"][2])


def _single(value: Any) -> Any:
    # A launch from Python passes numbers as float32.
    return float(np.float32(value)) if isinstance(value, float) else value


def _with_constants(plugin: Plugin, variant: Any, constants: dict[str, Any], dtype: str, shapes: Shapes) -> Any:
    types = {name: kind for name, kind in variant.types.items() if name not in constants}
    types[plugin.output] = _POINTERS[plugin.dtype(plugin.output, dtype)]
    divisible = tuple(name for name in variant.divisible if name not in constants)
    return replace(variant, types=types, constants={**variant.constants, **constants}, divisible=divisible)


def _distinct(variants: list[Any]) -> list[Any]:
    return list({_key(variant): variant for variant in variants}.values())


def _key(variant: Any) -> str:
    return repr((variant.name, sorted(variant.types.items()), sorted(variant.constants.items()), variant.warps))


_compiled: dict[str, Code] = {}


def _code(kernel: str, variant: Any) -> Code:
    """Compile a variant once a process, because TensorRT asks when it lists tactics and again for each of them."""
    from triton import knobs

    from ...kernels.triton.compile import compile_variant

    key = _key(variant)
    if key not in _compiled:
        with knobs.compilation.scope():
            knobs.compilation.disable_line_info = True  # without this, engines would hold paths of this machine
            entry, code = compile_variant(kernel, variant, PORTABLE, _PTX_VERSION)
        ptx = with_visible_parameters(code["ptx"].decode(), entry["entry"], len(entry["arguments"]))
        if ptx is None:
            raise DeviceError(f"{variant.name} uses scratch memory, which a plugin of TensorRT does not have.")
        name = f"{variant.name}_{sha256(ptx.encode()).hexdigest()[:8]}"
        _compiled[key] = Code({**entry, "entry": name}, renamed(ptx, entry["entry"], name))
    return _compiled[key]
