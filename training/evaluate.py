"""The shared part of all systems' evaluations: bounds, the data that a model was trained on, reports that are JSON."""

import logging
import math
import time
from collections.abc import Callable
from typing import Any

from zellige.errors import DataError, TaskError

from ..engine.checkpoint.file import Header, read_tensors, write_checkpoint
from ..engine.library import BUNDLED
from .data.scenes import Scenes
from .data.sources import Pictures, located

__all__ = ["as_json", "check_recordable", "measured", "record_metrics", "said", "trained_on"]

logger = logging.getLogger(__name__)


def measured(
    model: Any, evaluate: Callable[[Any, str, int, int], dict[str, Any]], data: str | None, count: int, seed: int
) -> dict[str, Any]:
    """Run a system's evaluation and add its conditions; arguments as in `training.systems.evaluate`."""
    if count < 2:
        raise DataError(f"{count} images cannot be compared; use --count 2 or more")
    if not 0 <= seed < 2**63:
        raise DataError(f"the seed must be 0 or more and below 2**63, not {seed}; use another --seed")
    name, began = located(data or trained_on(model)), time.perf_counter()
    report = {"data": name, "count": count} | evaluate(model, name, count, seed)
    conditions = {"device": str(model.device), "precision": model.precision, "seed": seed}
    return as_json(report | {"seconds": time.perf_counter() - began} | conditions)


def trained_on(model: Any) -> str:
    """Return the data set or folder that a model was trained on, from its header.

    Raises:
        DataError: the header names none.
    """
    name = model.header.details.get("data")
    if not isinstance(name, str):
        raise DataError(f"{model.name} does not say what it was trained on; name the data set or folder with --data")
    return name


def said(model: Any, name: str, data: Pictures | Scenes) -> dict[str, Any]:
    """Report the files of the data: their numbers, and whether the model was trained on others.

    Args:
        model: the model.
        name: name of the data; it is compared with the model's files only if the model was trained on this name.
        data: either split of the data.
    Returns:
        `pictures`, numbers by part, and `data_changed`; nothing if the data are computed.
    """
    if not data.listings:
        return {}
    counts = {part: listing.counts() for part, listing in data.listings.items()}
    trained = model.header.details.get("pictures")
    if name != model.header.details.get("data") or not isinstance(trained, dict):
        return {"pictures": counts}
    digests = {part: of.get("digest") if isinstance(of, dict) else None for part, of in trained.items()}
    changed = digests != {part: of["digest"] for part, of in counts.items()}
    if changed:
        logger.warning(
            "%s holds other pictures than %s was trained on; a picture never changes sides, so the held-out ones were "
            "not trained on, but figures from before are no longer comparable",
            name,
            model.name,
        )
    return {"pictures": counts, "data_changed": changed}


def as_json(report: dict[str, Any]) -> dict[str, Any]:
    """Return a report whose infinite values are None, with their keys under `missing`, because JSON has no infinity.

    Raises:
        DataError: a value is NaN, which no sound measurement gives.
    """
    infinite: list[str] = []

    def plain(value: Any, where: str) -> Any:
        if isinstance(value, dict):
            return {key: plain(inner, f"{where}.{key}" if where else key) for key, inner in value.items()}
        if isinstance(value, list):
            return [plain(inner, where) for inner in value]
        if isinstance(value, float) and math.isnan(value):
            raise DataError(f"{where} came out as not a number; the images or the data cannot be measured")
        if isinstance(value, float) and math.isinf(value):
            infinite.append(where)
            return None
        return value

    found: dict[str, Any] = plain(report, "")
    if infinite:
        found["missing"] = found.get("missing", {}) | {"the ratio is infinite": list(dict.fromkeys(infinite))}
    return found


def check_recordable(header: Header) -> None:
    """Refuse to write into a model of the package, because an update would undo it and others may share the model.

    Raises:
        TaskError: the file, or the target of its link, lies in the package.
    """
    if header.path.resolve().parent == BUNDLED.resolve():
        raise TaskError(
            f"{header.path.stem} is a bundled model, whose file belongs to the package; copy "
            f"{header.path} elsewhere and record the metrics in the copy"
        )


def record_metrics(header: Header, report: dict[str, Any]) -> None:
    """Write a report into the checkpoint that it measures, under details.metrics; the weights stay as they are.

    Raises:
        TaskError: the checkpoint is bundled with the package.
        OutputError: the file cannot be written.
    """
    check_recordable(header)
    tensors = read_tensors(header)
    details = header.details | {"metrics": report}
    write_checkpoint(header.path, tensors, system=header.system, config=header.config, details=details)
