"""The table of layers and their other forms; a new layer needs only a row here.

`plan` measures the forms that run on a layer's device; `for_onnx` takes the forms that are marked for graphs.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from ...kernels.winograd_conv.op import native_dtypes
from ..layers.convolutions import CodedConv, JoinedConvTranspose2d, PaddedConv, UpConv
from ..layers.modulated import SpreadConv, StyleConv
from .constant_channels import constant_channels
from .convolution import plain
from .up_conv import doubles, spread_phases, transposed_phases, up_conv
from .whole_map import covers, whole_map
from .winograd import halves, strided_winograd, styled_winograd, winograd

__all__ = ["forms", "graph_form"]

Build = Callable[[], nn.Module]
_FEWEST_OUTPUTS = 16  # winograd makes 32 at a time
_WIDE = 128  # channels


@dataclass(frozen=True)
class _Form:
    """A rewrite of a class of layers.

    Attributes:
        name: the form's name in a `Choice`.
        build: builds the form of a trained layer.
        here: whether the form runs on a layer's device, in its dtype and shape.
        in_graphs: whether a layer has the form in exported graphs.
    """

    name: str
    build: Callable[[Any], nn.Module]
    here: Callable[[Any], bool]
    in_graphs: Callable[[Any], bool] = lambda layer: False


def _always(layer: nn.Conv2d) -> bool:
    return True


def _never(layer: nn.Module) -> bool:
    return False


def _tiles(layer: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    """Whether Winograd's kernel runs this layer: on a CPU, in the kernel's dtypes, with enough outputs."""
    on_cpu = layer.weight.device.type == "cpu"
    return on_cpu and layer.weight.dtype in native_dtypes() and layer.out_channels >= _FEWEST_OUTPUTS


def _strided(cells: Literal[1, 2, 3], here: Callable[[Any], bool]) -> _Form:
    """Winograd's form of a convolution of stride 2, with tiles of so many cells a side."""
    return _Form(f"winograd, {cells} x {cells}", partial(strided_winograd, cells=cells), here)


def _same(layer: nn.Conv2d) -> bool:
    """Whether a 3x3 convolution keeps a map's sides, or is unpadded."""
    one = layer.stride == layer.dilation == (1, 1) and layer.groups == 1
    padded = layer.padding in ((0, 0), (1, 1)) and layer.padding_mode in ("zeros", "replicate")
    return layer.kernel_size == (3, 3) and one and padded


def _doubles(layer: UpConv) -> bool:
    """Whether the layer's step before the convolution is nearest x2 alone."""
    return layer.mode == "nearest" and not layer.spare


def _gains(layer: UpConv) -> bool:
    return _doubles(layer) and layer.in_channels >= _WIDE and not _unbuilt(layer)


def _unbuilt(layer: Any) -> bool:
    """Whether graphs need another form of a transposed layer: TensorRT-RTX 1.7 builds none in bfloat16."""
    return bool(layer.weight.dtype == torch.bfloat16)


_WINOGRAD = _Form("winograd", winograd, lambda layer: _same(layer) and _tiles(layer))
_WHOLE_MAP = _Form("matrix product", whole_map, covers)
_WHOLE_MAP_TRANSPOSED = replace(_WHOLE_MAP, in_graphs=lambda layer: covers(layer) and _unbuilt(layer))
_TRANSPOSED = (
    _Form("phases", transposed_phases, doubles, lambda layer: doubles(layer) and _unbuilt(layer)),
    *(_strided(cells, lambda layer: doubles(layer) and _tiles(layer)) for cells in (3, 2, 1)),
)
# Fewer cells a tile take more multiplications and less memory, which is what small maps wait for.
_FORMS: dict[type[nn.Module], tuple[_Form, ...]] = {
    nn.Conv2d: (
        _WINOGRAD,
        *(_strided(cells, lambda layer: halves(layer) and _tiles(layer)) for cells in (3, 2, 1)),
        _WHOLE_MAP,
    ),
    PaddedConv: (_WINOGRAD,),
    UpConv: (
        _Form("phases", lambda layer: up_conv(plain(layer), "phases"), _doubles),
        _Form(
            "transposed",
            lambda layer: up_conv(plain(layer), "transposed"),
            # On a CPU oneDNN's transposed convolutions round some images differently in another batch.
            lambda layer: _doubles(layer) and layer.weight.device.type != "cpu",
            _gains,
        ),
        _Form(
            "winograd",
            lambda layer: winograd(plain(layer), upsample=True, spare=layer.spare),
            lambda layer: layer.mode == "nearest" and _tiles(layer),
        ),
    ),
    nn.ConvTranspose2d: (*_TRANSPOSED, _WHOLE_MAP_TRANSPOSED),
    JoinedConvTranspose2d: _TRANSPOSED,
    StyleConv: (
        _Form("winograd, 2 x 2", styled_winograd, _tiles),
        _Form(
            "winograd, 4 x 4",
            partial(styled_winograd, cells=4),
            lambda layer: _tiles(layer) and layer.weight.dtype == torch.float32,  # bfloat16 would lose too many digits
        ),
    ),
    SpreadConv: (
        *(_Form(f"winograd, {k} x {k}", partial(styled_winograd, cells=k), _tiles) for k in (2, 1)),
        _Form("phases", spread_phases, _never, _unbuilt),
    ),
    CodedConv: (
        _Form("constant channels", lambda layer: constant_channels(plain(layer), layer.code), _always, _always),
        _Form("constant channels, winograd", lambda layer: winograd(plain(layer), code=layer.code), _tiles),
    ),
}


def forms(layer: nn.Module) -> dict[str, Build]:
    """The forms that a layer can have on its device, by name, each as a function that builds the form."""
    return {form.name: partial(form.build, layer) for form in _of(layer) if form.here(layer)}


def graph_form(layer: nn.Module) -> Build | None:
    """A function that builds a layer's form for graphs; None if the layer stays as it was trained."""
    return next((partial(form.build, layer) for form in _of(layer) if form.in_graphs(layer)), None)


def _of(layer: nn.Module) -> tuple[_Form, ...]:
    """The row of a layer's exact class, because a subclass may compute something else with its weights."""
    other = isinstance(layer, nn.Conv2d) and not (_same(layer) or halves(layer) or covers(layer))
    return () if other else _FORMS.get(type(layer), ())
