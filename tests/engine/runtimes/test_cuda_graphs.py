"""What follows from the order of calls is tested on a CPU, by graphs that record operators; the rest needs a GPU."""

import copy
import logging
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from zellige.engine.runtimes import joined, open_runtime
from zellige.engine.runtimes.buckets import cover
from zellige.engine.runtimes.cuda_graphs import GraphRuntime
from zellige.errors import ShapeError, TaskError

from .networks import SIDE, Painter, rows
from .recorded_graphs import RecordedGraph, recorded

__all__ = ["recorded"]

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
Graphs = list[RecordedGraph]


def made(runtime: GraphRuntime, inputs: Sequence[Tensor], host: bool = True) -> Tensor:
    return joined(runtime.run(inputs, host=host), len(inputs[0]), lent=runtime.lends)


def direct(network: Painter, inputs: Sequence[Tensor], buckets: Sequence[int], device: torch.device = CPU) -> Tensor:
    """The network called with the same batches, the last row of each repeated where it is padded."""
    results = []
    for batch in cover(len(inputs[0]), buckets):
        some = [batch.start + min(k, batch.count - 1) for k in range(batch.size)]
        results.append(network(*(tensor[some].to(device) for tensor in inputs))[: batch.count].cpu())
    return torch.cat(results)


class TestOrder:
    def test_a_copy_captures_its_own_network(self, recorded: Graphs) -> None:
        runtime, inputs = GraphRuntime(Painter("float"), CPU, (1, 4)), rows(5)
        expected = made(runtime, inputs)
        other = copy.deepcopy(runtime)
        assert other.usage.graphs == [] and torch.equal(made(other, inputs), expected)
        other = copy.deepcopy(other)
        other.network.conv.weight.zero_()
        other.network.conv.bias.zero_()
        assert not made(other, inputs).any() and torch.equal(made(runtime, inputs), expected)

    @pytest.mark.parametrize("host", [True, False])
    def test_results_are_those_of_direct_calls_whatever_the_numbers(self, recorded: Graphs, host: bool) -> None:
        network = Painter()
        runtime = GraphRuntime(network, CPU, (1, 4, 8))
        for seed, count in enumerate((1, 3, 23, 2)):
            inputs = rows(count, seed)
            assert torch.equal(made(runtime, inputs, host), direct(network, inputs, (1, 4, 8)))

    def test_a_bucket_is_captured_once(self, recorded: Graphs) -> None:
        runtime = GraphRuntime(Painter(), CPU, (1, 4, 8))
        for count in (1, 12, 1, 12):
            made(runtime, rows(count))
        assert runtime.usage.graphs == [1, 8, 4]
        assert [graph.replays for graph in recorded] == [2, 2, 2]

    def test_warm_captures_what_such_calls_need(self, recorded: Graphs) -> None:
        runtime = GraphRuntime(Painter(), CPU, (1, 4, 8))
        runtime.warm([1, 12], rows(1))
        assert runtime.usage.graphs == [8, 4, 1]
        made(runtime, rows(13))
        assert len(recorded) == 3

    def test_padding_is_logged_and_counted(self, recorded: Graphs, caplog: pytest.LogCaptureFixture) -> None:
        runtime = GraphRuntime(Painter(), CPU, (1, 4, 8))
        with caplog.at_level(logging.INFO):
            made(runtime, rows(7))
        assert caplog.messages == ["7 images in batches of [8]: 1 more are made and thrown away"]
        assert runtime.usage.row() == {"images": 7, "padding": 1, "batches": {"8": 1}, "graphs": [8]}

    def test_a_run_that_was_left_does_not_disturb_the_next(self, recorded: Graphs) -> None:
        network = Painter()
        runtime = GraphRuntime(network, CPU, (1, 4))
        left = runtime.run(rows(12))
        next(left)
        with pytest.raises(TaskError, match="amid another run"):
            next(runtime.run(rows(3)))
        left.close()  # type: ignore[attr-defined]
        assert torch.equal(made(runtime, rows(5, seed=3)), direct(network, rows(5, seed=3), (1, 4)))

    def test_other_shapes_than_the_captured_ones_are_refused(self, recorded: Graphs) -> None:
        runtime = GraphRuntime(Painter(), CPU, (1, 4))
        runtime.warm([1], rows(1))
        classes, latents = rows(2)
        with pytest.raises(
            ShapeError,
            match=r"^this runtime was captured for inputs torch.int64 \[N\], torch.float32 \[N, 6\]; "
            r"got torch.int64 \[2\], torch.float64 \[2, 6\]$",
        ):
            runtime.run((classes, latents.double()))

    def test_a_network_that_does_not_give_a_row_for_each_is_refused(self, recorded: Graphs) -> None:
        with pytest.raises(ShapeError, match=r"^the network made \[3\] of 4 rows; it must give one row for each$"):
            made(GraphRuntime(lambda x: x[:3], CPU, (4,)), (torch.zeros(4),))

    def test_no_rows_make_no_batch(self, recorded: Graphs) -> None:
        assert list(GraphRuntime(Painter(), CPU).run(rows(0))) == []

    def test_a_network_that_cannot_be_captured_is_called_directly(
        self, recorded: Graphs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Broken:
            def __init__(self, *args: object, **options: object) -> None:
                pass

            def __enter__(self) -> None:
                raise RuntimeError("operation not permitted when stream is capturing\nmore")

            def __exit__(self, *error: object) -> None:
                pass

        monkeypatch.setattr(torch.cuda, "graph", Broken)
        network = Painter()
        runtime = GraphRuntime(network, CPU, (1, 4))
        found = [made(runtime, rows(7)), made(runtime, rows(7))]
        assert all(torch.equal(images, torch.cat([network(*rows(7))])) for images in found)
        reason = "the network cannot be captured as a CUDA graph (operation not permitted when stream is capturing)"
        assert caplog.messages == [f"{reason}; it is called directly, which takes longer for small batches"]
        assert runtime.usage.row() == {
            "images": 14, "padding": 0, "batches": {"3": 2, "4": 2}, "graphs": [], "eager": reason,
        }  # fmt: skip


@pytest.mark.gpu
class TestOnTheDevice:
    @pytest.mark.parametrize("count", [1, 7, 8, 42, 100])
    @pytest.mark.parametrize("host", [True, False])
    @pytest.mark.parametrize("output", ["uint8", "float"])
    def test_graphs_give_the_bits_of_direct_calls(self, count: int, host: bool, output: str) -> None:
        network = Painter(output).to(CUDA)
        runtime = open_runtime("torch", network, CUDA)
        assert isinstance(runtime, GraphRuntime)
        for seed in range(3):
            inputs = rows(count, seed)
            found = made(runtime, inputs, host)
            assert found.device.type == ("cpu" if host else "cuda")
            assert torch.equal(found.cpu(), direct(network, inputs, runtime.buckets, CUDA))

    def test_numbers_keep_their_order_through_many_overlapping_batches(self) -> None:
        def slow(x: Tensor) -> Tensor:
            y = x[:, None].expand(-1, 4096).contiguous()
            for _ in range(20):
                y = y * 1.0
            return y

        runtime = GraphRuntime(slow, CUDA, (1, 8))
        numbers = torch.arange(401.0)
        for host in (True, False):
            assert torch.equal(made(runtime, (numbers,), host)[:, 17].cpu(), numbers)

    def test_results_that_stay_are_not_overwritten_while_the_caller_uses_them(self) -> None:
        runtime = GraphRuntime(lambda x: x[:, None].expand(-1, 4096) * 1.0, CUDA, (8,))
        kept = []
        for _, result in runtime.run((torch.arange(80.0),), host=False):
            torch.cuda._sleep(2_000_000)  # so the caller's copy comes late
            kept.append(result.clone())
        assert torch.equal(torch.cat(kept)[:, 0].cpu(), torch.arange(80.0))

    def test_a_bucket_is_captured_once(self) -> None:
        runtime = GraphRuntime(Painter().to(CUDA), CUDA)
        runtime.warm([1, 8, 32], rows(2))
        for count in (41, 1, 41):
            made(runtime, rows(count))
        assert runtime.usage.graphs == [32, 8, 1]

    def test_memory_does_not_grow_over_100_runs(self) -> None:
        runtime = GraphRuntime(Painter().to(CUDA), CUDA)
        inputs, out = rows(73), np.empty((73, SIDE, SIDE, 3), np.uint8)

        def once() -> tuple[int, int]:
            for start, images in runtime.run(inputs):
                out[start : start + len(images)] = images.numpy()
            return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()

        first = once()
        assert {once() for _ in range(100)} == {first}

    def test_a_network_that_waits_for_the_device_is_called_directly(self, caplog: pytest.LogCaptureFixture) -> None:
        def waiting(x: Tensor) -> Tensor:
            return x * float(x.sum().cpu() * 0 + 2)

        runtime = GraphRuntime(waiting, CUDA, (1, 8))
        numbers = torch.arange(20.0)
        for _ in range(2):
            assert torch.equal(made(runtime, (numbers,)), numbers * 2)
        assert len(caplog.messages) == 1 and caplog.messages[0].startswith("the network cannot be captured as a CUDA")
        assert torch.cuda.current_stream() == torch.cuda.default_stream()
        assert torch.equal(made(GraphRuntime(lambda x: x + 1, CUDA, (4,)), (numbers,)), numbers + 1)
