"""What is built ahead of time is what is launched: the same grids, constants and options."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import pytest
import torch

from zellige import kernels as zk
from zellige.kernels.triton.tiles import tile
from zellige.kernels.triton.tuning import INTERPRETED
from zellige.kernels.triton.variants import LAYOUTS, Variant, all_variants


def test_variants_have_names_of_their_own():
    names = [variant.name for _, variant in all_variants()]
    assert len(set(names)) == len(names)
    assert all(variant.name.startswith(f"{kernel}_") for kernel, variant in all_variants())


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, Any]]]:
    """Record each launch under the interpreter, its function and arguments, instead of running it."""
    from triton.runtime.interpreter import InterpretedFunction

    from zellige.kernels.rearrange import tiles

    recorded = []

    def run(self: Any, *arguments: Any, grid: Any, warmup: bool, **others: Any) -> None:
        given = dict(zip(self.arg_names, arguments, strict=False)) | others
        recorded.append((self, given | {"grid": grid(given) if callable(grid) else grid}))

    monkeypatch.setattr(InterpretedFunction, "run", run)
    # As in the variants for 128 columns.
    monkeypatch.setitem(tiles._SMALL, "PARTS", 1)
    return recorded


def maps(*shape: int, dtype: torch.dtype, channels_last: bool) -> torch.Tensor:
    x = torch.zeros(shape, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    return x.requires_grad_()


def calls(dtype: torch.dtype, last: bool) -> dict[str, Callable[[], torch.Tensor]]:
    """Calls with maps of several tiles, and no size a multiple of one."""
    x = maps(3, 150, 37, 61, dtype=dtype, channels_last=last)
    image = maps(3, 3, 37, 61, dtype=dtype, channels_last=last)
    mask = torch.zeros(3, 1, 37, 61, dtype=dtype)
    rows = (torch.zeros(3, 70, 128, dtype=dtype, requires_grad=True) for _ in range(3))
    pair = (torch.zeros(3, 150), torch.zeros(3, 150))
    across = torch.zeros(2, 3, 150, 1, 61)
    noise = (torch.zeros(3, 1, 37, 61), torch.zeros([], dtype=dtype))
    even = x[:, :, 1:, 1:].contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    four = maps(3, 600, 37, 61, dtype=dtype, channels_last=last).detach()
    positions = torch.zeros(5, 2, dtype=torch.int64)
    windows = torch.ones(37), torch.ones(61)
    points = torch.ones(300, 40, dtype=dtype)
    patches = image.detach()[:1].expand(5, 3, 37, 61)
    field = (torch.zeros(3, 37, 40), torch.zeros(37, 61, 16), torch.zeros(3, 37).long(), torch.zeros(3, 61).long())
    force: dict[str, Any] = {"backend": "triton"}

    def wave_field(coarse: int) -> torch.Tensor:
        down, noise, *cells = field
        return zk.wave_field(down, torch.zeros(3, coarse, 61, 56), noise, *cells, dtype, every=8, first=4, **force)

    return {
        "affine_relu": lambda: zk.affine_relu(x, *pair, **force),
        "affine_relu x2": lambda: zk.affine_relu(x, *pair, True, **force),
        "affine_relu width": lambda: zk.affine_relu(x, *across, **force),
        "affine_relu height": lambda: zk.affine_relu(x, *(t.mT[:, :, :37] for t in across), **force),
        "affine_relu map": lambda: zk.affine_relu(x, *(t.expand(x.shape) for t in across), **force),
        "glu_layer_norm": lambda: zk.glu_layer_norm(x, torch.zeros(75), torch.zeros(75), **force),
        "phase_epilogue": lambda: zk.phase_epilogue(four, torch.zeros(75), torch.zeros(75), **force),
        "phase_epilogue affine": lambda: zk.phase_epilogue(four, *pair, "affine_relu", **force),
        "rearrange": lambda: zk.rearrange(*rows, **force),
        "bias_noise_act": lambda: zk.bias_noise_act(x, pair[0][0], **force),
        "bias_noise_act noise": lambda: zk.bias_noise_act(x, pair[0][0], *noise, **force),
        "bias_noise_act factor": lambda: zk.bias_noise_act(x, pair[0][0], factor=pair[1], **force),
        "bias_noise_act noise, factor": lambda: zk.bias_noise_act(x, pair[0][0], *noise, factor=pair[1], **force),
        "fir_resample up": lambda: zk.fir_resample(x, True, **force),
        "fir_resample down": lambda: zk.fir_resample(even, False, **force),
        "mask_composite": lambda: zk.mask_composite(image, image, mask, **force),
        "mask_composite bytes": lambda: zk.mask_composite(image.detach(), image, mask, output="uint8", **force),
        "nearest_centroid": lambda: zk.nearest_centroid(points, points[:9], **force),
        "wave_field": lambda: wave_field(1),
        "wave_field moving": lambda: wave_field(6),
        "feather_blend": lambda: zk.feather_blend(patches, positions, *windows, (99, 201), **force),
    }


@pytest.mark.skipif(not INTERPRETED, reason="launches are recorded from the interpreter")
@pytest.mark.parametrize("last", [False, True], ids=["planes", "channels-last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_variants_have_the_grids_constants_and_options_of_the_launches(dtype, last, launches):
    variants: defaultdict[Any, list[Variant]] = defaultdict(list)
    for _, variant in all_variants():
        variants[variant.jitted].append(variant)
    seen = set()
    for name, call in calls(dtype, last).items():
        y = call()
        if y.requires_grad:
            y.backward(torch.zeros_like(y))
        assert launches, name
        for function, given in launches:
            fitting = [v for v in variants[function] if fits(v, given)]
            assert fitting, (name, function.__name__, given)
            for variant in fitting:
                sizes = given | {"samples": 3, "rows": 3 * 70}
                axes = replace(variant, constants={n: given[n] for n in variant.constants}).axes()
                assert list(given["grid"]) == [
                    prod(-(-(size if isinstance(size, int) else sizes[size]) // divisor) for size, divisor in axis)
                    for axis in axes
                ], variant.name
                assert variant.fp_fusion is given["enable_fp_fusion"], variant.name
                assert set(variant.types) | set(variant.constants) <= set(given), variant.name
            seen.add(function)
        launches.clear()
    if not last:  # by pixel, mask_composite has no planes
        assert seen == set(variants)


@pytest.mark.skipif(not INTERPRETED, reason="launches are recorded from the interpreter")
@pytest.mark.parametrize("shape", [(70000, 2, 1, 1), (1, 70000, 1, 2), (2, 2, 1, 70000)], ids=str)
def test_no_axis_of_a_grid_but_the_first_passes_65535(shape, launches):
    for last in (False, True):
        x = maps(*shape, dtype=torch.float32, channels_last=last)
        n, channels, rows, columns = shape
        factors = torch.zeros(n, channels)
        image = x.detach().flatten()[: n * rows * columns].view(n, 1, rows, columns)
        results = [
            zk.affine_relu(x, factors, factors, backend="triton"),
            zk.glu_layer_norm(x, factors[0, ::2], factors[0, ::2], backend="triton"),
            zk.bias_noise_act(x, factors[0], backend="triton"),
            zk.fir_resample(x, True, backend="triton"),
            zk.mask_composite(image, image, image, backend="triton"),
        ]
        for y in results:
            if y.requires_grad:
                y.backward(torch.zeros_like(y))
    assert len(launches) >= 10
    assert all(programs <= 65535 for _, given in launches for programs in given["grid"][1:])


def test_the_tiles_of_variants_are_those_of_large_maps():
    for layout in LAYOUTS.values():
        shape = tile(bool(layout["CHANNELS_LAST"]), 2**20, 64)
        assert shape == (layout["PIXELS"], layout["CHANNELS"])


def fits(variant: Variant, given: dict[str, Any]) -> bool:
    """Tell whether a variant is for such arguments: equal constants, but those of tiles, and dtypes of pointers."""
    pointers = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.uint8: "*u8", torch.int64: "*i64"}
    tiles = {"PIXELS", "CHANNELS", "VALUES", "RUNS", "LENGTH", "BLOCK", "QUERIES", "KEYS"}
    tiles |= {f"{prefix}{part}" for prefix in ("", "K_", "V_") for part in ("OWN", "MAIN", "TAIL")}
    same = all(given[name] == value for name, value in variant.constants.items() if name not in tiles)
    return same and all(
        given[name] is not None and pointers[given[name].dtype] == kind
        for name, kind in variant.types.items()
        if kind.startswith("*")
    )
