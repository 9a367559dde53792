"""Draws curves of a training run from its log.

    python -m zellige.benchmarks.training_curves runs/emoji/log.jsonl --out curves.png critic,adversarial mask_share

Each word is a panel, and lists the keys of the log that are drawn in it.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from zellige.errors import DataError, MissingExtraError

from ..engine.files.atomic import AtomicFile

__all__ = ["draw"]


def draw(log: Path, out: Path, panels: Sequence[Sequence[str]]) -> None:
    """Draw values of a log over the steps, a panel for each list of keys.

    Args:
        log: `log.jsonl` of a run.
        out: the PNG file, which appears when it is complete.
        panels: keys of the log; each is drawn from the step at which it first appears.
    Raises:
        DataError: the log lacks a key.
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "drawing curves", "bench") from error
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    known = {key for line in lines for key in line}
    if unknown := [key for keys in panels for key in keys if key not in known]:
        raise DataError(f"{log} holds no {unknown[0]!r}; it holds {', '.join(sorted(known))}")
    figure = Figure(figsize=(4 * len(panels), 3), layout="constrained")
    for axes, keys in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for key in keys:
            points = [(line["step"], line[key]) for line in lines if key in line]
            axes.plot(*zip(*points, strict=True), label=key, linewidth=1)
        axes.set_xlabel("step")
        axes.legend(fontsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    with AtomicFile(out) as file:
        figure.savefig(file, format="png", dpi=110)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser("python -m zellige.benchmarks.training_curves", description="Draw a training log.")
    parser.add_argument("log", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="the PNG file")
    parser.add_argument("panels", nargs="+", help="keys with commas between them, one list a panel")
    given = parser.parse_args()
    draw(given.log, given.out, [keys.split(",") for keys in given.panels])


if __name__ == "__main__":
    main()
