"""A network as an ONNX model of standard operators, for batches of any size."""

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from zellige.errors import MissingExtraError

from ...kernels import plain_operators
from ..images import AtomicFile
from .inputs import Network, Rows, repeated

__all__ = ["export_onnx"]

_OPSET = 20


def export_onnx(network: Network, example: Sequence[Rows], path: Path, names: Sequence[str] = ()) -> None:
    """Write a network as a .onnx file; it appears complete or not at all.

    Args:
        network: tensors [N, ...] to one tensor [N, ...], on a CPU, in evaluation. Nothing in it may choose by N.
        example: inputs of one row or more.
        path: an existing file is replaced.
        names: of the inputs, in their order; none calls them x0, x1 and so on.
    Raises:
        MissingExtraError: onnx or onnxscript is not installed; OutputError: the path cannot be written.
    """
    for package in ("onnx", "onnxscript"):
        if find_spec(package) is None:
            raise MissingExtraError(package, "exporting ONNX models", "export")
    rows = repeated(example, 2)  # a single row would make the exporter take N for the constant 1
    names = list(names) or [f"x{k}" for k in range(len(rows))]
    with warnings.catch_warnings(), torch.inference_mode(), plain_operators():
        warnings.simplefilter("ignore")  # of the exporter's own deprecations
        program = torch.onnx.export(
            _Module(network), rows, dynamo=True, opset_version=_OPSET, input_names=names, output_names=["images"],
            dynamic_shapes=(tuple({0: torch.export.Dim("N")} for _ in rows),), verbose=False,
        )  # fmt: skip
    assert program is not None
    with AtomicFile(path) as file:
        file.write(program.model_proto.SerializeToString())


class _Module(nn.Module):
    """What the exporter takes."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, *rows: Tensor) -> Tensor:
        return self.network(*rows)
