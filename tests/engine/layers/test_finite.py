import pytest
import torch

from zellige.engine.layers.finite import require_finite
from zellige.errors import ValuesError

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_value_that_is_no_number_is_found(dtype: torch.dtype, value: float) -> None:
    images = torch.rand(2, 3, 65, 67).to(dtype)
    images[1, 2, 64, 66] = value
    with pytest.raises(ValuesError, match=r"^planet gives values that are no numbers; its weights are damaged, or"):
        require_finite(images, "planet")


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_pass_whatever_their_sum_is(dtype: torch.dtype) -> None:
    require_finite(torch.full((2, 3, 256, 256), torch.finfo(dtype).max, dtype=dtype), "planet")
    require_finite(torch.empty(0, 3, 8, 8, dtype=dtype), "planet")
