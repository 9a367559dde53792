"""The way in which Zellige makes the images that are measured."""

from collections.abc import Callable

import torch
from torch import Tensor

from ...engine.rewrite.plan import rewritten
from ...engine.runtimes import joined, open_runtime
from .subjects import Subject

__all__ = ["ours"]


@torch.inference_mode()
def ours(subject: Subject, precision: str, batch: int) -> Callable[..., Tensor]:
    """Return a function from a batch of the subject's inputs to images in float32, made as by `zellige.load`."""
    network = subject.at(precision)
    # As everywhere, one choice of rewrites serves all batches.
    networks = network.task.network
    rewritten(networks, lambda: networks(*subject.example))
    if subject.device.type == "cpu":
        return network
    runtime = open_runtime("torch", network, subject.device, (batch,))  # one captured batch
    return lambda *inputs: joined(runtime.run(inputs, host=False), batch, lent=runtime.lends)
