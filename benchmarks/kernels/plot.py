"""A report of kernels as one picture: percent of the limit over shapes, a panel for each kernel."""

from pathlib import Path
from typing import Any

from zellige.errors import TaskError

from .compare import PASSES

__all__ = ["plot"]

# The kernel has the colour of ink. Peers have quiet colours that stay apart in grey and for the colour-blind.
_COLOURS = {
    "zellige": "#1a1a1a", "eager": "#8fb3cf", "compile": "#d99a5b", "sdpa": "#b9a7cc", "liger": "#c9828b",
    "onnxruntime": "#7fa88b", "openvino": "#c8b560",
}  # fmt: skip
_INK, _FAINT, _LINE = "#1a1a1a", "#7a7a7a", "#dedede"
_LINE_INCHES, _TITLE, _NAMES, _HEAD, _FOOT = 0.21, 0.62, 2.75, 0.85, 0.45  # in inches
_SHORT = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def plot(report: dict[str, Any], path: Path) -> None:
    """Draw the forward pass into a PNG file, with a line for each shape and dtype and a dot for each runner.

    Raises:
        TaskError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise TaskError("a plot needs matplotlib; install zellige[bench].") from error
    rows = [row for row in report["results"] if row["pass"] == PASSES[0]]
    kernels = list(dict.fromkeys(row["kernel"] for row in rows))
    lines = {kernel: _lines([row for row in rows if row["kernel"] == kernel]) for kernel in kernels}
    # From the longest on, each panel goes below the shorter column, so that a long panel leaves no hole beside it.
    columns: list[list[str]] = [[] for _ in range(min(2, len(kernels)))]

    def length(column: list[str]) -> float:
        return sum(_inches(lines[kernel]) for kernel in column)

    for kernel in sorted(kernels, key=lambda kernel: -_inches(lines[kernel])):
        min(columns, key=length).append(kernel)
    width, height = 6.8 * len(columns) + 0.4, max(map(length, columns)) + _HEAD + _FOOT
    figure = Figure(figsize=(width, height), dpi=150, facecolor="white")
    for k, column in enumerate(columns):
        top = height - _HEAD
        for kernel in column:
            panel = _inches(lines[kernel])
            left = 0.2 + 6.8 * k + _NAMES
            place = (left / width, (top - panel) / height, (6.8 - _NAMES - 0.4) / width, (panel - _TITLE) / height)
            _panel(figure.add_axes(place), kernel, lines[kernel])
            top -= panel
    shown = {row["runner"].split("-")[0] for row in rows}
    _head(figure, report, [name for name in _COLOURS if name in shown])
    figure.savefig(path, format="png")


def _lines(rows: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Group rows by shape and dtype, with the dtypes of a shape next to each other."""
    shapes, dtypes = (dict.fromkeys(row[key] for row in rows) for key in ("shape", "dtype"))
    lines = {(shape, dtype): [r for r in rows if (r["shape"], r["dtype"]) == (shape, dtype)]
             for shape in shapes for dtype in dtypes}  # fmt: skip
    return {key: found for key, found in lines.items() if found}


def _extent(lines: dict[tuple[str, str], list[dict[str, Any]]]) -> float:
    """Return the place of the last line, in lines; shapes are half a line apart."""
    return len(lines) - 1 + 0.5 * (len({shape for shape, _ in lines}) - 1)


def _inches(lines: dict[tuple[str, str], list[dict[str, Any]]]) -> float:
    return _LINE_INCHES * (_extent(lines) + 1.4) + _TITLE


def _panel(axes: Any, kernel: str, lines: dict[tuple[str, str], list[dict[str, Any]]]) -> None:
    y, before, largest = 0.0, None, 100.0
    for (shape, dtype), rows in lines.items():
        if before not in (None, shape):
            y += 0.5
        values = [row["percent_of_limit"] for row in rows]
        axes.plot([0, 100], [y, y], color=_LINE, linewidth=0.6, zorder=1)
        axes.plot([min(values), max(values)], [y, y], color="#c4c4c4", linewidth=1.6, zorder=2, solid_capstyle="round")
        for row in reversed(rows):  # so that the kernel's dot is on top
            own = row["runner"] == "zellige"
            colour = _COLOURS.get(row["runner"].split("-")[0], _FAINT)
            axes.plot(
                row["percent_of_limit"], y, "o", color=colour, markersize=6.5 if own else 5.5,
                markeredgecolor="white", markeredgewidth=0.7, zorder=4 if own else 3, clip_on=False,
            )  # fmt: skip
        name = shape if shape != before else ""
        axes.annotate(name, (0, y), (-34, 0), textcoords="offset points", ha="right", va="center", fontsize=7.5,
                      color=_INK)  # fmt: skip
        axes.annotate(_SHORT.get(dtype, dtype), (0, y), (-6, 0), textcoords="offset points", ha="right", va="center",
                      fontsize=7, color=_FAINT)  # fmt: skip
        before, largest = shape, max(largest, *values)
        y += 1
    axes.set_title(kernel, loc="left", fontsize=10, color=_INK, fontweight="bold", pad=7)
    axes.set_xlim(0, largest)
    axes.set_ylim(_extent(lines) + 0.7, -0.7)
    axes.set_xticks([0, 25, 50, 75, 100], ["0", "25", "50", "75", "100 %"])
    axes.xaxis.tick_top()
    axes.tick_params(axis="x", length=0, labelsize=7, labelcolor=_FAINT, pad=1)
    axes.axvline(100, color=_FAINT, linewidth=0.8, ymax=1, zorder=1)
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _head(figure: Any, report: dict[str, Any], runners: list[str]) -> None:
    """Draw a title, and instead of a legend the runners' names in their colours."""
    inch = 1 / figure.get_figheight()
    machine = report["conditions"]
    device = machine["gpu"] if report["results"][0]["device"] == "cuda" else machine["processor"]
    figure.text(0.02, 1 - 0.32 * inch, "Percent of the limit, forward pass", fontsize=13, color=_INK, va="center")
    place = 0.02
    for name in runners:
        figure.text(place, 1 - 0.62 * inch, "\u25cf", fontsize=9, color=_COLOURS.get(name, _FAINT), va="center")
        figure.text(place + 0.15 / figure.get_figwidth(), 1 - 0.62 * inch, name, fontsize=9, color=_INK, va="center",
                    fontweight="bold" if name == "zellige" else "normal")  # fmt: skip
        place += (0.42 + 0.082 * len(name)) / figure.get_figwidth()
    note = (
        "100 % is the time of a copy of as many bytes, or of as many multiplications of a large matrix product, "
        f"measured in the same rounds\n{device}, {machine['threads']} threads, torch {machine['versions']['torch']}, "
        f"{machine['date']}"
    )
    figure.text(0.02, 0.22 * inch, note, fontsize=7, color=_FAINT, va="center")
