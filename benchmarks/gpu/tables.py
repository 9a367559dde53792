"""The text for people: lines for notable steps, and the short table at the end."""

from collections import Counter
from typing import Any

__all__ = ["closing_table", "describe"]

_MOST_FAILURES = 12


def describe(report: dict[str, Any]) -> list[str]:
    """Return lines for steps that did not pass, for chosen configurations and for functions that take long."""
    lines = _troubles(report["steps"], ("failed", "stopped", "skipped"))
    for step in report["steps"]:
        result = step.get("result", {})
        for choice in result.get("configurations", []):
            lines.append(f"{step['step']}: {choice['function']}: {choice['chosen']}")
        if functions := result.get("functions"):
            total = sum(row["microseconds"] for row in functions) or 1
            shares = (f"{100 * row['microseconds'] / total:.0f} % {row['name'][:40]}" for row in functions[:3])
            lines.append(f"{step['step']}: {', '.join(shares)}")
    return lines


def closing_table(reports: list[dict[str, Any]]) -> str:
    """Return a table: which parts passed, how long they took, the figures in brief, and the first failures."""
    lines = []
    for report in reports:
        counts = Counter(step["state"] for step in report["steps"])
        states = ", ".join(f"{count} {state}" for state, count in counts.items() if state != "began") or "nothing ran"
        failed = not report["passed"] and (not report["stopped"] or counts["failed"])
        mark = "FAILED" if failed else "ok" if report["passed"] else "late"
        late = f" after {report['limit_seconds']:.0f} s time ran out" if report["stopped"] else ""
        lines.append(f"{report['part']:<11}{mark:<7}{report['seconds']:>6.1f} s  {states}{late}")
        lines += [f"{'':<11}{line}" for line in _figures(report)]
    failures = _troubles([step for report in reports for step in report["steps"]], ("failed",))
    lines += failures[:_MOST_FAILURES]
    if len(failures) > _MOST_FAILURES:
        lines.append(f"and {len(failures) - _MOST_FAILURES} more; the JSON has all")
    return "\n".join(lines)


def _figures(report: dict[str, Any]) -> list[str]:
    results = {step["step"]: step["result"] for step in report["steps"] if "result" in step}
    if report["part"] == "conditions":
        return _conditions(results)
    if report["part"] == "panorama":
        lines = []
        for result in results.values():
            if "pixels_per_second" in result:
                lines.append(
                    f"{result['width']}x{result['height']} on {result['device']} in {result['precision']}: "
                    f"{result['pixels_per_second'] / 1e6:.1f} megapixels/s, "
                    f"peak {result['peak_memory_bytes'] / 2**20:.0f} MiB"
                )
            else:
                lines.append(f"error {result['error']:.2g} of 255, on the CPU {result['error_of_bf16_on_the_cpu']:.2g}")
        return lines
    if report["part"] == "bench":
        kernels: dict[str, list[dict[str, Any]]] = {}
        for row in (row for result in results.values() for row in result["results"]):
            kernels.setdefault(f"{row['kernel']} {row['dtype']}", []).append(row)
        return [_bench_line(name, rows) for name, rows in kernels.items()]
    if report["part"] == "generate":
        return [_generate_line(name, result) for name, result in results.items()]
    return []


def _generate_line(name: str, result: dict[str, Any]) -> str:
    """Return a line with our median, and the best peer's median over it."""
    own = next(row for row in result["results"] if row["runner"] == "zellige")
    if own["p50_ms"] is None:
        return f"{name}: {own['reason']}"
    (by_batch,) = result["speedup_same_precision"].values()
    (ratio,) = by_batch.values()
    return f"{name}: {own['p50_ms']:.2f} ms" + ("" if ratio is None else f", {ratio:.2f} x best peer")


def _conditions(results: dict[str, dict[str, Any]]) -> list[str]:
    machine = results.get("machine")
    if machine is None:
        return []
    versions = ", ".join(f"{name} {machine['packages'][name]}" for name in ("torch", "triton"))
    lines = [f"{machine['gpu'] or machine['processor']}, {versions}, Python {machine['versions']['python']}"]
    if "copy" in results and "matrix product" in results:
        copy, product = results["copy"]["gigabytes_per_second"], results["matrix product"]["teraflops"]
        lines.append(f"copy {copy:.0f} GB/s, bf16 product {product:.3g} TFLOP/s")
    return lines


def _bench_line(name: str, rows: list[dict[str, Any]]) -> str:
    """Return for each pass, over the shapes, our share of the limit, and the ratio of the best peer's time to ours."""
    parts = []
    for stage in dict.fromkeys(row["pass"] for row in rows):
        best: dict[str, float] = {}
        shares = []
        for row in rows:
            if row["pass"] == stage and row["runner"] == "zellige":
                shares.append(row["percent_of_limit"])
            elif row["pass"] == stage:
                best[row["shape"]] = min(row["ratio"], best.get(row["shape"], row["ratio"]))
        part = f"{stage} {min(shares):.0f} to {max(shares):.0f} % of limit"
        if best:
            part += f", {min(best.values()):.2f} to {max(best.values()):.2f} x best peer"
        parts.append(part)
    return f"{name}: {'; '.join(parts)}"


def _troubles(steps: list[dict[str, Any]], states: tuple[str, ...]) -> list[str]:
    """Return one line for each test that did not pass, however many sets of parameters failed."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for step in steps:
        if step["state"] in states:
            groups.setdefault((step["state"], step["step"].split("[")[0]), []).append(step)
    lines = []
    for (state, _), members in groups.items():
        times = f" and {len(members) - 1} more of it" if len(members) > 1 else ""
        lines.append(f"{state}: {members[0]['step']}{times}: {_reason(members[0])}")
    return lines


def _reason(step: dict[str, Any]) -> str:
    """Return the line of an error that says most: pytest marks it with E, other errors begin or end with it."""
    lines = [line for line in step.get("error", "").splitlines() if line.strip()] or [""]
    marked = [line[1:].strip() for line in lines if line.startswith("E ")]
    return (marked or lines)[0][:160]
