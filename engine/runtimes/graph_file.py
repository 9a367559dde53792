"""A checked .onnx file of one exported task, from which a system makes a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zellige.errors import CheckpointError

from . import BUCKETS, Runtime, open_runtime

__all__ = ["EXPORT_AGAIN", "GraphFile", "sides_of"]

EXPORT_AGAIN = "export it again"
_FEWER = 8  # trained weights for each byte of the file; rewritten layers never have that many fewer


@dataclass(frozen=True)
class GraphFile:
    """An exported task.

    Attributes:
        path: the file.
        model: the checked onnx.ModelProto.
        runtime: the name of the runtime to run it with.
        device: the device to run it on.
        dtype: the dtype of its convolutions.
    """

    path: Path
    model: Any
    runtime: str
    device: torch.device
    dtype: torch.dtype

    @property
    def name(self) -> str:
        """The model's name."""
        return self.path.stem

    @property
    def weights(self) -> int:
        """A bound on the number of weights that the trained network had; rewritten layers may have fewer."""
        return _FEWER * self.bytes

    @property
    def bytes(self) -> int:
        """The bytes of the file and of the weights beside it."""
        return sum(
            file.stat().st_size for file in (self.path, self.path.with_name(f"{self.path.name}.data")) if file.is_file()
        )

    def open(self, sizes: Sequence[int] = BUCKETS, memory: int | None = None) -> Runtime:
        """Open a runtime for batches of these sizes; `memory` bounds its bytes on the device, None does not."""
        return open_runtime(self.runtime, self.path, self.device, sizes, memory)

    def check(self, inputs: Mapping[str, Sequence[int]], size: tuple[int, int], channels: int = 3) -> None:
        """Check that the sides of its inputs and images, after the batch, are those of its configuration.

        Raises:
            CheckpointError: they differ.
        """
        found = {value.name: sides_of(value) for value in self.model.graph.input}
        images = [sides_of(value) for value in self.model.graph.output]
        wanted = ([[*size, channels]], [[channels, *size]])
        if found != {name: list(shape) for name, shape in inputs.items()} or images not in wanted:
            raise CheckpointError(
                f"{self.path} takes {found} and gives {images}, which is not what its configuration says; "
                f"{EXPORT_AGAIN}"
            )


def sides_of(value: Any) -> list[int]:
    """The sides of an input or an output after the batch."""
    return [side.dim_value for side in value.type.tensor_type.shape.dim][1:]
