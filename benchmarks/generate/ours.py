"""The one place that says how Zellige makes the images that are measured."""

from collections.abc import Callable

from torch import Tensor

from .subjects import Subject

__all__ = ["ours"]


def ours(subject: Subject, precision: str, batch: int) -> Callable[..., Tensor]:
    """A function of the subject's inputs, a batch of them, that returns images in float32."""
    return subject.at(precision)
