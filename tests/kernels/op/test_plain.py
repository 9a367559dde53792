"""plain_operators: the same values by standard operators, for whatever traces them, and only inside of the block."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zellige import kernels
from zellige.engine.systems.coco_gan.config import CocoGanConfig
from zellige.engine.systems.coco_gan.generator import Generator
from zellige.engine.systems.onegan.config import OneGanConfig
from zellige.engine.systems.onegan.networks import OneGanNetworks
from zellige.errors import ShapeError
from zellige.kernels import plain_operators
from zellige.kernels.op import plain

Call = Callable[[], Tensor]


def calls(dtype: torch.dtype) -> dict[str, Callable[..., Tensor]]:
    """A call of every function that has a plain form, with its backend left open."""
    torch.manual_seed(0)

    def maps(*shape: int) -> Tensor:
        return torch.randn(shape).to(dtype).to(memory_format=torch.channels_last)

    x, one, parts = maps(2, 8, 6, 4), maps(2, 1, 6, 4), (maps(2, 3, 6, 4), maps(2, 3, 6, 4))
    each, factors, gates = torch.randn(8), torch.randn(2, 2, 8), torch.randn(2, 4)
    across, cells = torch.randn(2, 3, 4, 14), (torch.randint(6, (2, 5)), torch.randint(4, (2, 4)))
    tokens, strength = torch.randn(3, 2, 5, 4).to(dtype), torch.tensor(0.5)
    k = kernels
    return {
        "affine_relu": partial(k.affine_relu, x, *factors),
        "affine_relu, doubled": partial(k.affine_relu, x, *factors, True),
        "affine_relu, varying": partial(k.affine_relu, x, *torch.randn(2, 2, 8, 1, 4)),
        "bias_noise_act": partial(k.bias_noise_act, x, each),
        "bias_noise_act, noisy": partial(k.bias_noise_act, x, each, one, strength),
        "bias_noise_act, scaled": partial(k.bias_noise_act, x, each, one, strength, factor=factors[0], clamp=1.0),
        "fir_resample, up": partial(k.fir_resample, x, True),
        "fir_resample, down": partial(k.fir_resample, x, False),
        "glu_layer_norm": partial(k.glu_layer_norm, x, *gates, 1e-3),
        "mask_composite": partial(k.mask_composite, *parts, one),
        "mask_composite, finished": partial(k.mask_composite, *parts, one.sigmoid(), logits=False),
        "nearest_centroid": partial(k.nearest_centroid, tokens[0, 0], tokens[1, 0]),
        "nearest_centroid, cosine": partial(k.nearest_centroid, tokens[0, 0], tokens[1, 0], "cosine"),
        "phase_epilogue": partial(k.phase_epilogue, x, *gates[:, :1], eps=1e-3),
        "phase_epilogue, affine": partial(k.phase_epilogue, x, *factors[..., :2], "affine_relu"),
        "rearrange": partial(k.rearrange, *tokens),
        "rearrange, scaled": partial(k.rearrange, *tokens, 0.3),
        "wave_field": partial(
            k.wave_field, torch.randn(2, 5, 8), across, torch.randn(6, 4, 6), *cells, dtype, every=3, first=1
        ),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", calls(torch.float32))
def test_values_are_those_of_the_reference(name, dtype):
    call = calls(dtype)[name]
    with plain_operators():
        actual = call()
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 5e-2, "atol": 5e-2}
    torch.testing.assert_close(actual, call(backend="reference"), **tolerance)


def test_bytes_are_within_one_of_the_reference():
    torch.manual_seed(0)
    parts = [torch.randn(2, channels, 5, 7) for channels in (3, 3, 1)]
    with plain_operators():
        actual = kernels.mask_composite(*parts, output="uint8")
    wanted = kernels.mask_composite(*parts, output="uint8", backend="reference")
    assert actual.shape == wanted.shape == (2, 5, 7, 3) and actual.dtype == torch.uint8
    assert (actual.int() - wanted.int()).abs().max() <= 1


def onegan() -> tuple[nn.Module, tuple[Tensor, ...]]:
    network = OneGanNetworks(OneGanConfig(resolution=64, width=1, encoder_width=1))
    return network, network.draw(2, torch.Generator().manual_seed(0))


def coco_gan() -> tuple[nn.Module, tuple[Tensor, ...]]:
    config = CocoGanConfig(patch=8, width=1, latent=4)
    return Generator(config, spectral=False), (torch.rand(2, 4), torch.rand(2, 2))


def dense_coco_gan() -> tuple[nn.Module, tuple[Tensor, ...]]:
    config = CocoGanConfig(patch=8, width=1, latent=4, dense=True, padding="none")
    return Generator(config, spectral=False), (torch.rand(2, 4), torch.rand(2, 2))


@pytest.mark.parametrize("make", [onegan, coco_gan, dense_coco_gan])
def test_an_exported_generator_has_standard_operators_alone(make):
    network, inputs = make()
    network = network.eval().requires_grad_(False)
    assert foreign(torch.export.export(network, inputs)), "the search would not find an operator of ours"
    with plain_operators():
        program = torch.export.export(network, inputs)
    assert not foreign(program)
    torch.testing.assert_close(program.module()(*inputs), network(*inputs), rtol=1e-3, atol=1e-4)


def foreign(program: torch.export.ExportedProgram) -> list[str]:
    return [str(node.target) for node in program.graph.nodes if "zellige" in str(node.target)]


def test_what_was_compiled_inside_is_compiled_anew_outside():
    seen: list[list[str]] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        seen.append([str(node.target) for node in graph.graph.nodes if "zellige" in str(node.target)])
        return graph

    torch.compiler.reset()
    x, weight, bias = torch.randn(1, 4, 3, 3), torch.ones(2), torch.zeros(2)
    compiled = torch.compile(lambda x: kernels.glu_layer_norm(x, weight, bias), backend=backend, fullgraph=True)
    with plain_operators():
        first = compiled(x)
        compiled(x)
    second = compiled(x)
    assert [bool(names) for names in seen] == [False, True]
    torch.testing.assert_close(first, second)


def test_it_nests_and_ends_with_its_block():
    with plain_operators():
        with plain_operators():
            assert plain.this_thread.active
        assert plain.this_thread.active
    assert not plain.this_thread.active


def test_it_ends_when_the_block_fails():
    with pytest.raises(ValueError, match="^stop$"), plain_operators():
        raise ValueError("stop")
    assert not plain.this_thread.active


def test_it_holds_for_its_own_thread_however_blocks_overlap():
    inside, left = threading.Barrier(2), threading.Barrier(2)

    def another() -> tuple[bool, bool]:
        before = plain.this_thread.active
        with plain_operators():
            inside.wait(60)
            left.wait(60)
        return before, plain.this_thread.active

    with ThreadPoolExecutor(1) as threads:
        with plain_operators():
            found = threads.submit(another)
            inside.wait(60)
        assert not plain.this_thread.active
        left.wait(60)
        assert found.result(60) == (False, False)


def test_refusals_stay():
    with plain_operators(), pytest.raises(ShapeError, match="^x is"):
        kernels.glu_layer_norm(torch.ones(1, 3, 2, 2), torch.ones(1), torch.ones(1))
