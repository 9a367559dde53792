"""The runtimes: one interface, and several engines that run a network on rows of inputs, batch by batch.

| name | runs | how |
|---|---|---|
| `torch` | a network of PyTorch | directly on a CPU; on a CUDA device its work is captured once for each batch size |
| `onnx` | a .onnx file | ONNX Runtime with the device's provider, into buffers that are reused |
| `tensorrt` | a .onnx file, or an engine that was built from one | TensorRT, with captured work. Untested on a GPU |

A batch of another size may run other kernels and so give an image other last bits. Therefore `split` and `cover` in
buckets.py choose the batches from nothing but the number of images and the buckets.
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
    """Runs a network; `open_runtime` makes one.

    Attributes:
        name: its name, as in `open_runtime`.
        device: the device that it runs on.
        lends: whether rows that `run` yields are overwritten once the next ones are asked for.
        usage: counts of the images and batches that it has run since it was opened.
    """

    name: str
    device: torch.device
    lends: bool
    usage: Usage

    def run(self, inputs: Sequence[Rows], *, host: bool = True) -> Iterator[tuple[int, Tensor]]:
        """Run the network on every row, in batches, in order.

        Args:
            inputs: arrays or tensors [N, ...] in host memory, all with the same N, one row for each image.
            host: yield results in host memory; False leaves them on the device, in the order of its current stream.
        Returns:
            pairs of a batch's first row and its result [n, ...]. If the runtime lends, a result is valid until the next
            pair is asked for. `joined` makes one tensor of all results.
        Raises:
            ShapeError: the inputs have different numbers of rows, or do not fit the network.
        """
        ...

    def warm(self, counts: Iterable[int], example: Sequence[Rows]) -> None:
        """Do now the work of the first calls of these numbers of rows: compile kernels, capture graphs.

        Args:
            counts: numbers of rows, such as 1, 8 and 32.
            example: inputs of one row or more, with the shapes and dtypes that later inputs will have.
        """
        ...


def checked_name(name: str, dtype: torch.dtype = torch.float32, device: torch.device | None = None) -> str:
    """Check, before anything is loaded, that a runtime can run networks of this dtype on this device; return its name.

    Raises:
        DeviceError: there is no such runtime, or it cannot run this dtype or on this device.
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
    """Export a network and open a runtime for the graph; arguments are those of `onnx_graph` and `open_runtime`."""
    from .onnx_export import onnx_graph

    model = onnx_graph(network, example, names).model
    return open_runtime(name, model.SerializeToString(), device, buckets, memory)


def open_runtime(
    name: str, network: Network | Path | bytes, device: torch.device, buckets: Sequence[int] = BUCKETS,
    memory: int | None = None,
) -> Runtime:  # fmt: skip
    """Open a runtime for a network.

    Args:
        name: "torch", "onnx" or "tensorrt".
        network: for "torch" a function on the device from tensors [N, ...] to one tensor [N, ...]; for "onnx" the path
            or the bytes of a model, such as `zellige export` writes; for "tensorrt" such a model, or an engine that was
            built from one.
        device: the device to run on.
        buckets: sizes of batches. On CUDA "torch" and "tensorrt" run no other sizes. Elsewhere batches have the largest
            size, and the last batch of a run is as small as its rest.
        memory: most bytes of a CUDA device that "onnx" or "tensorrt" may allocate, for "tensorrt" without weights; None
            for no limit.
    Raises:
        DeviceError: there is no such runtime, or it cannot run this network or on this device.
        SizeError: a bucket is below 1.
        MissingExtraError: ONNX Runtime, TensorRT or CuPy is not installed.
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
