import torch

from zellige.kernels.op.levels import bytes_of, values_of

BYTES = torch.arange(256, dtype=torch.uint8)


def test_every_byte_comes_back():
    assert torch.equal(bytes_of(values_of(BYTES)), BYTES)


def test_values_are_float32_from_minus_one_to_one():
    values = values_of(BYTES)
    assert values.dtype == torch.float32 and values[0] == -1 and values[255] == 1
    torch.testing.assert_close(values, BYTES.double().div(127.5).sub(1).float())


def test_halves_go_to_the_even_byte_and_nothing_leaves_the_range():
    values = torch.tensor([0.0, 1 / 127.5, -1 / 127.5, -3.0, 1.5, float("inf"), -float("inf"), float("nan")])
    assert bytes_of(values).tolist() == [128, 128, 126, 0, 255, 255, 0, 0]


def test_the_hosts_default_dtype_changes_nothing():
    torch.set_default_dtype(torch.float64)
    try:
        values = values_of(BYTES)
        assert values.dtype == torch.float32 and torch.equal(bytes_of(values), BYTES)
    finally:
        torch.set_default_dtype(torch.float32)
