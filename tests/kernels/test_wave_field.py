"""What is special to wave_field: where rows lie among the factors, which cells they name, and more values than 2^31."""

import pytest
import torch
from torch import Tensor

from zellige.engine.systems.coco_gan.spread import Cells
from zellige.kernels import wave_field

from . import textbook
from .judge import assert_same_bits

BACKENDS = ["reference", "native", "triton"]
backends = pytest.mark.parametrize("backend", BACKENDS)
WAVES, NOISES = 6, 3


def drawn(n: int, s: int, t: int, coarse: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Arguments with cells of their own for each sample, from a table of 5 by 7."""
    random = torch.Generator().manual_seed(seed)
    shapes = (n, s, 2 * WAVES), (n, coarse, t, 2 * WAVES + NOISES), (5, 7, NOISES)
    cells = torch.randint(5, (n, s), generator=random), torch.randint(7, (n, t), generator=random)
    return *(torch.randn(shape, generator=random) for shape in shapes), *cells


@backends
def test_every_sample_has_cells_of_its_own(backend: str) -> None:
    tensors = drawn(3, 4, 5, 1)
    y = wave_field(*tensors, torch.float32, backend=backend)
    torch.testing.assert_close(y, textbook.wave_field(*tensors))
    for k in range(3):
        down, across, noise, rows, columns = tensors
        one = (t[k : k + 1] for t in (rows, columns))
        single = wave_field(down[k : k + 1], across[k : k + 1], noise, *one, torch.float32, backend=backend)
        assert_same_bits(single, y[k : k + 1])


@backends
@pytest.mark.parametrize("every", [1, 2, 3, 7, 8])
def test_rows_may_lie_anywhere_from_the_first_factors_to_the_last(every: int, backend: str) -> None:
    coarse, least = 4, every // 2
    most = (coarse - 1) * every + 1 - (every % 2 == 0)  # rows from the first factors' own place to the last ones'
    for first, count in ((least, most), (least, 1), (least + most - 1, 1), (least + every, every + 1)):
        tensors = drawn(2, count, 3, coarse)
        place = {"every": every, "first": first}
        y = wave_field(*tensors, torch.float32, **place, backend=backend)
        torch.testing.assert_close(y, textbook.wave_field(*tensors, **place))
        assert_same_bits(y, wave_field(*tensors, torch.float32, **place, backend="reference"))


@backends
@pytest.mark.parametrize("scale", [1, 2, 8])
def test_factors_between_rows_are_those_that_moving_latents_take(scale: int, backend: str) -> None:
    down, across, noise, rows, columns = drawn(1, 11, 3, 17)
    cells = Cells(scale, 5, (11, 3))
    y = wave_field(down, across, noise, rows, columns, torch.float32, every=scale, first=5, backend=backend)
    each_row = cells.down(across)
    by_row = [
        wave_field(down[:, i, None], each_row[:, i, None], noise, rows[:, i, None], columns, torch.float32)
        for i in range(11)
    ]
    assert_same_bits(y, torch.cat(by_row, 2))


@backends
def test_a_cell_has_the_same_bits_in_any_map(backend: str) -> None:
    down, across, noise, rows, columns = drawn(1, 21, 20, 5)
    place = {"every": 8, "dtype": torch.bfloat16, "backend": backend}
    whole = wave_field(down, across, noise, rows, columns, first=6, **place)
    part = wave_field(
        down[:, 9:17], across[:, :, 3:9].contiguous(), noise, rows[:, 9:17], columns[:, 3:9], first=15, **place
    )
    assert_same_bits(part, whole[:, :, 9:17, 3:9])


@backends
def test_one_row_of_factors_serves_all_rows_wherever_they_lie(backend: str) -> None:
    tensors = drawn(2, 9, 3, 1)
    y = wave_field(*tensors, torch.float32, backend=backend)
    assert_same_bits(wave_field(*tensors, torch.float32, every=4, first=-50, backend=backend), y)


@backends
def test_at_whole_places_the_next_factors_are_not_read(backend: str) -> None:
    tensors = drawn(1, 1, 3, 3)
    tensors[1][:, 0::2] = float("nan")
    assert wave_field(*tensors, torch.float32, every=3, first=4, backend=backend).isfinite().all()


@pytest.mark.parametrize(("name", "place"), [("rows", 3), ("columns", 4)])
@pytest.mark.parametrize("cell", [-8, 7])
def test_a_cell_that_the_table_lacks_is_refused(name: str, place: int, cell: int) -> None:
    tensors = drawn(2, 4, 5, 1)
    tensors[place][1, 2] = cell
    with pytest.raises(IndexError, match=f"^{name} must lie in the table of noise, from 0 to its size - 1.$"):
        wave_field(*tensors, torch.float32, backend="native")
    with pytest.raises(IndexError):
        wave_field(*tensors, torch.float32, backend="reference")
    y = wave_field(*tensors, torch.float32, backend="triton")
    assert y[:, :WAVES].isfinite().all() and y[1, WAVES:].isnan().any()


@pytest.mark.gpu
def test_more_than_two_to_the_31_values_are_addressed() -> None:
    if torch.cuda.mem_get_info()[0] < 16 * 2**30:
        pytest.skip("needs 16 GiB of device memory")
    tensors = [x.cuda() for x in drawn(1, 4096, 16384, 3)]
    place = {"every": 2048, "first": 1024, "dtype": torch.bfloat16, "backend": "triton"}
    batch = [x if k == 2 else x.expand(5, *x.shape[1:]) for k, x in enumerate(tensors)]  # all but the table
    y = wave_field(*batch, **place)
    assert y.numel() > 2**31
    assert_same_bits(y[-1:], wave_field(*tensors, **place))
