"""A report of generation as a table."""

from typing import Any

from rich.console import Group
from rich.table import Column, Table
from rich.text import Text

__all__ = ["table_of"]


def table_of(report: dict[str, Any]) -> Group:
    """Return a line for each runner and a rule after each batch; below come runners not timed, reasons and speedups."""
    titles = ("p50 ms", "p95 ms", "p99 ms", "images/s", "MiB", "of matmul", "max error", "PSNR dB")
    columns = (Column(title, justify="right", no_wrap=True) for title in titles)
    table = Table("precision", Column("batch", justify="right"), "runner", *columns)
    last, reasons = None, []
    for row in report["results"]:
        place = [row["precision"], str(row["batch"])]
        if row["reason"] is not None:
            reasons.append(Text(f"not timed: {row['runner']}, {place[0]}, batch {place[1]}: {row['reason']}"))
            continue
        if last not in (None, place):
            table.add_section()
        name = f"{row['runner']} ({row['form']})" if row["form"] else row["runner"]
        memory, times = row["peak_memory_bytes"], (f"{row[f'p{share}_ms']:.2f}" for share in (50, 95, 99))
        table.add_row(
            *(place if place != last else ["", ""]), name, *times,
            f"{row['images_per_second']:.1f}", "" if memory is None else f"{memory / 2**20:.0f}",
            f"{row['percent_of_matrix_rate']:.0f} %", f"{row['max_error']:.1e}", f"{row['psnr']:.0f}",
            style="bold" if row["runner"] == "zellige" else None,
        )  # fmt: skip
        last = place
    return Group(table, *reasons, *(_speedups(report, kind) for kind in ("same", "any")))


def _speedups(report: dict[str, Any], kind: str) -> Text:
    found = report[f"speedup_{kind}_precision"]
    cells = [
        f"{precision} batch {batch}: {'-' if ratio is None else f'{ratio:.2f}'}"
        for precision, ratios in found.items()
        for batch, ratio in ratios.items()
    ]
    return Text(f"best peer's p50 over ours, {kind} precision: {', '.join(cells)}")
