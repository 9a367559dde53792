"""A report of kernels as a table."""

from collections import defaultdict
from typing import Any

from rich.console import Group
from rich.table import Column, Table
from rich.text import Text

__all__ = ["table_of"]


def table_of(report: dict[str, Any]) -> Group:
    """Return a line for each runner and a rule after each shape; below come runners that were not measured, and why."""
    table = Table(
        *("kernel", "shape", "dtype", "pass", "runner"),
        *(_right(title) for title in ("ms", "p10", "p90", "ratio", "GB/s", "of copy", "of matmul", "of limit")),
    )
    last = None
    for row in report["results"]:
        place = [row[key] for key in ("kernel", "shape", "dtype", "pass")]
        if last not in (None, place):
            table.add_section()
        figures = [f"{1e3 * row[key]:.2f}" for key in ("seconds", "seconds_p10", "seconds_p90")]
        table.add_row(
            *(place if place != last else [""] * 4), row["runner"], *figures, f"{row['ratio']:.2f}",
            f"{row['gigabytes_per_second']:.1f}", _percent(row["percent_of_copy"]),
            _percent(row["percent_of_matrix_rate"]), _percent(row["percent_of_limit"]),
            style="bold" if row["runner"] == "zellige" else None,
        )  # fmt: skip
        last = place
    reasons: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for row in report["skipped"]:
        shapes = reasons[row["kernel"], row["runner"], row["reason"]]
        if (shape := f"{row['shape']} {row['dtype']}") not in shapes:
            shapes.append(shape)
    lines = [
        Text(f"not measured: {kernel}, {runner}: {reason} ({', '.join(shapes)})", style="dim")
        for (kernel, runner, reason), shapes in reasons.items()
    ]
    return Group(table, *lines)


def _right(title: str) -> Column:
    return Column(title, justify="right", no_wrap=True)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0f} %"
