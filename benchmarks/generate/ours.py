"""The one place that says how Zellige makes the images that are measured."""

from collections.abc import Callable

import torch
from torch import Tensor

from ...engine.rewrite.plan import rewritten
from ...engine.runtimes import joined, open_runtime
from .subjects import Subject

__all__ = ["ours"]


@torch.inference_mode()
def ours(subject: Subject, precision: str, batch: int) -> Callable[..., Tensor]:
    """A function of the subject's inputs, a batch of them, that returns images in float32: as `zellige.load` has it."""
    network = subject.at(precision)
    # One choice of rewrites for all batches, as everywhere.
    networks = network.task.network
    rewritten(networks, lambda: networks(*subject.example))
    if subject.device.type == "cpu":
        return network
    runtime = open_runtime("torch", network, subject.device, (batch,))  # one graph
    return lambda *inputs: joined(runtime.run(inputs, host=False), batch, lent=runtime.lends)
