import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zellige.kernels import feather_blend

from .judge import DTYPES, assert_same_bits

BACKENDS = ["reference", "native", "triton"]
FAST_BACKENDS = ["native", "triton"]

# (N, C, P, Q), (H, W): single values, odd sides, more patches than one scan of the GPU kernel, wider than its tile.
SHAPES = [
    ((1, 1, 1, 1), (1, 1)),
    ((4, 3, 5, 7), (9, 11)),
    ((3, 2, 17, 1), (13, 3)),
    ((5, 4, 3, 33), (6, 67)),
    ((140, 3, 3, 4), (10, 9)),
]


def scene(shape: tuple[int, ...], size: tuple[int, int], dtype: torch.dtype = torch.float32, seed: int = 0):
    """Patches at random places, many of them partly and some wholly outside the picture."""
    random = torch.Generator().manual_seed(seed)
    count, _, rows, columns = shape
    patches = (torch.rand(shape, generator=random) * 2.4 - 1.2).to(dtype)
    tops = torch.randint(-rows - 1, size[0] + 2, (count,), generator=random)
    lefts = torch.randint(-columns - 1, size[1] + 2, (count,), generator=random)
    windows = [(torch.rand(n, generator=random) * 1.5 - 0.3).clamp(min=0) for n in (rows, columns)]
    return patches, torch.stack([tops, lefts], dim=1), *windows


def feather(size: int, overlap: int) -> Tensor:
    """A window whose copies, size - overlap apart, add up to 1."""
    ramp = (torch.arange(overlap) + 0.5) / overlap
    return torch.cat([ramp, torch.ones(size - 2 * overlap), ramp.flip(0)])


@pytest.mark.parametrize("backend", FAST_BACKENDS)
@pytest.mark.parametrize("output", ["uint8", "float"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "size"), SHAPES)
def test_backend_equals_reference_bit_for_bit(shape, size, dtype, output, backend):
    arguments = scene(shape, size, dtype)
    expected = feather_blend(*arguments, size, output=output, backend="reference")
    assert_same_bits(feather_blend(*arguments, size, output=output, backend=backend), expected)


@given(
    shape=st.tuples(st.integers(0, 6), st.integers(1, 4), st.integers(1, 70), st.integers(1, 40)),
    size=st.tuples(st.integers(1, 140), st.integers(1, 70)),
    dtype=st.sampled_from(DTYPES),
    channels_last=st.booleans(),
    output=st.sampled_from(["uint8", "float"]),
    seed=st.integers(0, 99),
)
def test_native_equals_reference_for_any_scene(shape, size, dtype, channels_last, output, seed):
    patches, *rest = scene(shape, size, dtype, seed)
    if channels_last:
        patches = patches.contiguous(memory_format=torch.channels_last)
    expected = feather_blend(patches, *rest, size, output=output, backend="reference")
    assert_same_bits(feather_blend(patches, *rest, size, output=output, backend="native"), expected)


def test_native_widens_every_half_and_every_bfloat16():
    bits = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(1, 1, 256, 256)
    ones = torch.ones(256)
    for dtype in (torch.float16, torch.bfloat16):
        arguments = (bits.view(dtype), torch.zeros(1, 2, dtype=torch.int64), ones, ones, (256, 256))
        expected = bits.view(dtype).float()[0, 0, :, :, None]
        assert_same_bits(feather_blend(*arguments, output="float", backend="native"), expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_patches_side_by_side_come_back_bit_for_bit(channels_last, backend):
    patches = torch.randn(6, 3, 4, 5)
    patches[0, 0, 0, :3] = torch.tensor([-0.0, 1e-40, 3e38])
    expected = patches.unflatten(0, (2, 3)).permute(0, 3, 1, 4, 2).reshape(8, 15, 3)
    positions = torch.cartesian_prod(torch.arange(2) * 4, torch.arange(3) * 5)
    if channels_last:
        patches = patches.contiguous(memory_format=torch.channels_last)
    arguments = (patches, positions, torch.ones(4), torch.ones(5), (8, 15))
    assert_same_bits(feather_blend(*arguments, output="float", backend=backend), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_feathered_constant_stays_constant(backend):
    size, overlap = 8, 3
    positions = torch.cartesian_prod(torch.arange(3) * (size - overlap), torch.arange(4) * (size - overlap))
    arguments = (torch.full((12, 3, size, size), 0.3), positions, feather(size, overlap), feather(size, overlap))
    picture = feather_blend(*arguments, (18, 23), output="float", backend=backend)
    torch.testing.assert_close(picture, torch.full((18, 23, 3), 0.3))


@pytest.mark.parametrize("backend", BACKENDS)
def test_overlap_is_the_weighted_mean(backend):
    patches = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 1, 2)
    arguments = (patches, torch.tensor([[0, 0], [0, 1]]), torch.ones(1), torch.tensor([1.0, 3.0]), (1, 3))
    picture = feather_blend(*arguments, output="float", backend=backend)
    assert picture.flatten().tolist() == [-1.0, -0.5, 1.0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_uncovered_pixels_are_mid_grey(backend):
    for count in (0, 2):
        patches, positions = torch.randn(count, 3, 4, 4), torch.full((count, 2), 100)
        arguments = (patches, positions, torch.ones(4), torch.ones(4), (5, 6))
        assert_same_bits(feather_blend(*arguments, output="float", backend=backend), torch.zeros(5, 6, 3))
        assert (feather_blend(*arguments, backend=backend) == 128).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_zero_weight_does_not_cover(backend):
    arguments = (torch.ones(1, 1, 1, 2), torch.zeros(1, 2, dtype=torch.int64), torch.ones(1), torch.tensor([0.0, 2.0]))
    assert feather_blend(*arguments, (1, 2), output="float", backend=backend).flatten().tolist() == [0.0, 1.0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_bytes_round_half_to_even_and_saturate(backend):
    values = torch.tensor([-1.0, -3.0, 1.0, 1.5, 0.0, 0.5 / 127.5 - 1, 2.5 / 127.5 - 1, float("inf"), -float("inf")])
    count = len(values)
    arguments = (values.view(1, 1, 1, -1), torch.zeros(1, 2, dtype=torch.int64), torch.ones(1), torch.ones(count))
    picture = feather_blend(*arguments, (1, count), backend=backend)
    assert picture.flatten().tolist() == [0, 0, 255, 255, 128, 0, 2, 255, 0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_stays_in_its_pixel(backend):
    patches = torch.ones(1, 1, 3, 3)
    patches[0, 0, 1, 1] = float("nan")
    arguments = (patches, torch.zeros(1, 2, dtype=torch.int64), torch.ones(3), torch.ones(3), (3, 3))
    assert feather_blend(*arguments, backend=backend).flatten().tolist() == [255] * 4 + [0] + [255] * 4
    assert feather_blend(*arguments, output="float", backend=backend).isnan().sum() == 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("far", [2**63 - 1, -(2**63), 2**32, -(2**32), 2**31, 2**63 - 3, 3 - 2**63])
def test_positions_beyond_any_picture_add_nothing(far, backend):
    positions = torch.tensor([[far, 0], [0, far], [far, far]])
    arguments = (torch.ones(3, 3, 4, 5), positions, torch.ones(4), torch.ones(5), (6, 7))
    assert (feather_blend(*arguments, backend=backend) == 128).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_patches_are_added_in_index_order(backend):
    # In float32 1e8 + 1 - 1e8 is 0, and 1e8 - 1e8 + 1 is 1: the order of the patches shows in the sum.
    values, weights = torch.tensor([1e8, 1.0, -1e8]), torch.ones(1)
    arguments = (torch.zeros(3, 2, dtype=torch.int64), weights, weights, (1, 1))
    for order, expected in (([0, 1, 2], 0.0), ([0, 2, 1], 1 / 3)):
        picture = feather_blend(values[order].view(3, 1, 1, 1), *arguments, output="float", backend=backend)
        assert picture.item() == pytest.approx(expected)


@pytest.mark.gpu
@pytest.mark.parametrize("output", ["uint8", "float"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
def test_gpu_equals_reference_at_full_shape(channels_last, dtype, output):
    random = torch.Generator().manual_seed(0)
    patches = (torch.rand(4096, 3, 64, 64, generator=random) * 2.4 - 1.2).to(dtype)
    positions = torch.cartesian_prod(torch.arange(32) * 32 - 16, torch.arange(128) * 32 - 16)
    arguments = (patches, positions, feather(64, 32), feather(64, 32))
    expected = feather_blend(*arguments, (1000, 4100), output=output, backend="reference")
    on_device = [t.cuda() for t in arguments]
    if channels_last:
        on_device[0] = on_device[0].contiguous(memory_format=torch.channels_last)
    actual = feather_blend(*on_device, (1000, 4100), output=output, backend="triton")
    assert_same_bits(actual.cpu(), expected)
