"""What evaluations of all systems share: which data a model was trained on, and a report in its file."""

from typing import Any

from zellige.errors import DataError

from ..engine.checkpoint.file import Header, read_tensors, write_checkpoint
from ..engine.systems.coco_gan.model import CocoGan
from ..engine.systems.onegan.model import OneGan

__all__ = ["record_metrics", "trained_on"]


def record_metrics(header: Header, report: dict[str, Any]) -> None:
    """Write a report into the checkpoint that it measures, under details.metrics; the weights stay as they are."""
    tensors = read_tensors(header)
    details = header.details | {"metrics": report}
    write_checkpoint(header.path, tensors, system=header.system, config=header.config, details=details)


def trained_on(model: CocoGan | OneGan) -> str:
    """The data set or folder that a model was trained on, by its header."""
    name = model.header.details.get("data")
    if not isinstance(name, str):
        raise DataError(f"{model.name} does not say what it was trained on; name the data set or folder with --data")
    return name
