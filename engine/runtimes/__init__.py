"""One interface, several engines that run a network on rows of inputs, batch by batch.

| name | runs | how |
|---|---|---|
| `torch` | a network of PyTorch | on a CPU directly; on a CUDA device by graphs that are captured once a batch size |
| `onnx` | a .onnx file | ONNX Runtime, by the provider of the device, into buffers that stay |
| `tensorrt` | a .onnx file, or an engine that was built of one | TensorRT, by graphs. Untested on a GPU |

A batch of another size may take other kernels, and so give an image other last bits: `split` and `cover` in buckets.py
choose the batches, from the number of images and the buckets alone.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from zellige.errors import DeviceError

from .buckets import BUCKETS, Usage
from .pictures import As, checked_as, converted, joined
from .rows import Network, Rows

__all__ = [
    "BUCKETS",
    "NAMES",
    "As",
    "Runtime",
    "Usage",
    "checked_as",
    "checked_name",
    "converted",
    "exported",
    "joined",
    "open_runtime",
]

NAMES = ("torch", "onnx", "tensorrt")


class Runtime(Protocol):
    """Runs a network. Made by `open_runtime`.

    Attributes:
        name: as of `open_runtime`.
        device: where it runs.
        lends: whether rows that `run` yields are overwritten once the next ones are asked for.
        usage: what it has run, and padded, since it was opened.
    """

    name: str
    device: torch.device
    lends: bool
    usage: Usage

    def run(self, inputs: Sequence[Rows], *, host: bool = True) -> Iterator[tuple[int, Tensor]]:
        """Run the network on every row, in batches, in order.

        Args:
            inputs: arrays or tensors [N, ...] of one N in host memory; one row an image.
            host: yield results in host memory; False leaves them on the device, in the order of its current stream.
        Returns:
            pairs of a batch's first row and its result, [n, ...]; where the runtime lends, valid until the next pair is
            asked for. `joined` makes one tensor of them.
        Raises:
            ShapeError: the inputs have different numbers of rows, or do not fit the network.
        """
        ...

    def warm(self, counts: Iterable[int], example: Sequence[Rows]) -> None:
        """Do now the work of the first calls of these numbers of rows: compile kernels, capture graphs.

        Args:
            counts: of rows, such as 1, 8 and 32.
            example: inputs of one row or more, of the shapes and dtypes to come.
        """
        ...


def checked_name(name: str, dtype: torch.dtype = torch.float32, device: torch.device | None = None) -> str:
    """The name of a runtime that can run networks of this dtype on this device, refused before anything is loaded.

    Raises:
        DeviceError: there is no such runtime, or it runs no such networks, or not there.
    """
    if name not in NAMES:
        raise DeviceError(f"there is no runtime {name!r}; use {', '.join(map(repr, NAMES[:-1]))} or {NAMES[-1]!r}")
    if name == "tensorrt" and device is not None and device.type != "cuda":
        raise DeviceError(f"the runtime 'tensorrt' runs on CUDA devices, and not on {device}; use 'torch' or 'onnx'")
    if name == "onnx" and dtype != torch.float32:
        raise DeviceError("the runtime 'onnx' runs networks in fp32; take precision='fp32', or the runtime 'torch'")
    return name


def exported(
    name: str, network: Network, example: Sequence[Rows], device: torch.device, names: Sequence[str],
    buckets: Sequence[int] = BUCKETS, memory: int | None = None,
) -> Runtime:  # fmt: skip
    """A runtime for a network that is exported for it now; arguments as of `open_runtime` and `onnx_graph`."""
    from .onnx_export import onnx_graph

    model = onnx_graph(network, example, names).model
    return open_runtime(name, model.SerializeToString(), device, buckets, memory)


def open_runtime(
    name: str, network: Network | Path | bytes, device: torch.device, buckets: Sequence[int] = BUCKETS,
    memory: int | None = None,
) -> Runtime:  # fmt: skip
    """A runtime for a network.

    Args:
        name: "torch", "onnx" or "tensorrt".
        network: for "torch", a function of tensors [N, ...] to one tensor [N, ...], which lives on the device; for
            "onnx", the path or the bytes of a model, such as `zellige export` writes; for "tensorrt", such a model or
            an engine that was built of one.
        device: where it runs.
        buckets: sizes of batches. On CUDA "torch" and "tensorrt" run no others; elsewhere the largest counts, and the
            last batch of a run is as small as it comes.
        memory: most bytes of a CUDA device that "onnx" or "tensorrt" may allocate, weights apart of "tensorrt"; None
            for no limit.
    Raises:
        DeviceError: there is no such runtime, it cannot run this network, or not on this device.
        SizeError: a bucket is below 1; MissingExtraError: ONNX Runtime, or TensorRT or CuPy, is not installed.
        CheckpointError: the model cannot be opened.
    """
    if checked_name(name, device=device) != "torch":
        if not isinstance(network, Path | bytes):
            raise DeviceError(f"the runtime {name!r} runs an ONNX model; give its path or its bytes, or use 'torch'")
        if name == "tensorrt":
            from .tensorrt_runtime import TensorRtRuntime

            return TensorRtRuntime(network, device, buckets, memory)
        from .onnx_runtime import OnnxRuntime

        return OnnxRuntime(network, device, buckets, memory)
    if isinstance(network, Path | bytes):
        raise DeviceError("the runtime 'torch' runs a network of PyTorch and no ONNX model; use 'onnx' for that")
    if device.type == "cuda":
        from .cuda_graphs import GraphRuntime

        return GraphRuntime(network, device, buckets)
    from .torch_runtime import TorchRuntime

    return TorchRuntime(network, device, buckets)
