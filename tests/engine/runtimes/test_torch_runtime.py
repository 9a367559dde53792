import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from zellige.engine.runtimes import joined, open_runtime
from zellige.errors import ShapeError, SizeError

from ..layers.modes import MODES
from .networks import Painter, rows

CPU = torch.device("cpu")


@pytest.mark.parametrize("count", [1, 4, 5, 11])
@pytest.mark.parametrize("kind", ["arrays", "tensors"])
def test_a_run_gives_what_the_network_gives(count: int, kind: str) -> None:
    network, inputs = Painter(), rows(count)
    runtime = open_runtime("torch", network, CPU, (1, 4))
    given = tuple(tensor.numpy() for tensor in inputs) if kind == "arrays" else inputs
    expected = torch.cat([network(*(t[k : k + 4] for t in inputs)) for k in range(0, count, 4)])
    assert torch.equal(joined(runtime.run(given), count, lent=runtime.lends), expected)


def test_batches_come_in_order_with_their_first_row_and_without_padding() -> None:
    sizes = []

    def network(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return x * 2

    runtime = open_runtime("torch", network, CPU, (1, 4))
    found = [(start, result.tolist()) for start, result in runtime.run((torch.arange(6.0),))]
    assert found == [(0, [0, 2, 4, 6]), (4, [8, 10])]
    assert sizes == [4, 2]
    assert runtime.usage.row() == {"images": 6, "padding": 0, "batches": {"2": 1, "4": 1}, "graphs": []}


def test_warm_calls_the_network_with_the_batches_of_these_numbers() -> None:
    sizes = []

    def network(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return x

    open_runtime("torch", network, CPU, (1, 4)).warm([1, 6, 8], (torch.zeros(3),))
    assert sizes == [1, 2, 4]


def test_the_network_builds_no_graph_of_gradients() -> None:
    network = Painter("float").requires_grad_()
    (_, result), = open_runtime("torch", network, CPU).run(rows(2))  # fmt: skip
    assert not result.requires_grad


def test_results_of_a_batch_stay_as_they_are() -> None:
    runtime = open_runtime("torch", lambda x: x + 1, CPU, (2,))
    first, second = (result for _, result in runtime.run((torch.zeros(4),)))
    assert not runtime.lends and first.data_ptr() != second.data_ptr()


def test_arrays_that_are_read_only_or_strided_are_taken() -> None:
    latents = np.broadcast_to(np.arange(3, dtype=np.float32), (5, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ((_, result),) = open_runtime("torch", lambda x: x + 1, CPU).run((latents,))
    assert np.array_equal(result.numpy(), latents + 1)


def test_inputs_of_different_numbers_are_refused_before_the_run() -> None:
    runtime = open_runtime("torch", Painter(), CPU)
    with pytest.raises(ShapeError, match=r"^a runtime takes one input or more, all \[N, ...\] with one N; got \[3\], "):
        runtime.run((torch.zeros(3), torch.zeros(2, 6)))
    with pytest.raises(ShapeError, match=r"got none$"):
        runtime.run(())
    with pytest.raises(ShapeError, match=r"got \[\]$"):
        runtime.run((torch.tensor(1.0),))


def test_an_example_without_rows_is_refused() -> None:
    with pytest.raises(ShapeError, match="^an example without rows shows no shapes; give one row or more$"):
        open_runtime("torch", Painter(), CPU).warm([1], rows(0))


def test_no_rows_are_no_images() -> None:
    runtime = open_runtime("torch", Painter(), CPU)
    with pytest.raises(SizeError, match="^0 images cannot be generated; ask for 1 or more$"):
        joined(runtime.run(rows(0)), 0, lent=runtime.lends)


@pytest.mark.parametrize("mode", MODES)
def test_modes_of_the_host_change_no_bit(mode: str) -> None:
    runtime = open_runtime("torch", Painter("float"), CPU, (1, 4))
    given = tuple(tensor.numpy() for tensor in rows(5))
    expected = joined(runtime.run(given), 5, lent=runtime.lends)
    with MODES[mode]():
        runtime.warm([3], given)
        assert torch.equal(joined(runtime.run(given), 5, lent=runtime.lends), expected)


@pytest.mark.parametrize("deep", [True, False])
def test_a_copy_runs_a_network_of_its_own(deep: bool) -> None:
    runtime = open_runtime("torch", Painter("float").forward, CPU)
    expected = joined(runtime.run(rows(2)), 2, lent=False)
    other = copy.deepcopy(runtime) if deep else pickle.loads(pickle.dumps(runtime))
    assert torch.equal(joined(other.run(rows(2)), 2, lent=False), expected)
    other.network.__self__.conv.weight.zero_()
    assert torch.equal(joined(runtime.run(rows(2)), 2, lent=False), expected)
