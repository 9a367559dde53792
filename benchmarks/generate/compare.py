"""Compares a generator in Zellige with its peers in one run: first the images, then the times, measured in turns."""

import gc
import math
import shlex
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from zellige.errors import SizeError, TaskError

from ...engine.device import DTYPES
from ..conditions import conditions
from ..kernels.exported import Unmeasured
from .peak import peak_bytes
from .peers import PEERS, Runner, make_runner, plain, write_graph
from .subjects import SEED, Subject, subject_of
from .timing import alternate, matrix_product, prepare

__all__ = ["compare", "judged", "speedup"]

Row = dict[str, Any]
_LARGEST_ERROR = 1e-3  # allowed in fp32 images in [-1, 1]
_LEAST_PSNR = 30.0  # dB, required of bf16 images
_MOST_PSNR = 200.0  # reported if images are equal
_OURS = "zellige"
PRECISIONS = ("fp32", "bf16")  # the precisions that are measured
_FIGURES = ("calls", "p50_ms", "p95_ms", "p99_ms", "images_per_second", "peak_memory_bytes", "percent_of_matrix_rate")


def compare(
    model: str,
    batches: Sequence[int],
    precisions: Sequence[str],
    device: torch.device,
    against: Sequence[str] = PEERS,
    rounds: int = 5,
) -> Iterator[dict[str, Any]]:
    """Measure a generator and its peers, and yield the whole report anew after each precision and batch.

    `results` has a row for each runner, batch and precision: `p50_ms`, `p95_ms` and `p99_ms` of `calls`;
    `images_per_second` at the median; `peak_memory_bytes`; `max_error` and `psnr` in dB against plain PyTorch in
    float32; `gflop_per_image` of the plain network, and `percent_of_matrix_rate`, its rate as a share of the rate of
    `matmul` in the same rounds. A runner that is missing, fails or is wrong has a `reason` instead of times.
    `speedup_same_precision` and `speedup_any_precision` have the best peer's median over ours; in the latter the peer
    may have another precision. `rates` has the rates of `matmul`, in GFLOP/s.

    Args:
        model: a bundled name, a checkpoint's path, or a reference network.
        batches: numbers of images a call.
        precisions: some of PRECISIONS.
        device: the device to run on.
        against: some of PEERS.
        rounds: number of rounds, in each of which all take turns.

    Raises:
        SizeError: a batch is not positive.
        TaskError: a precision or peer does not exist.
        UnknownModelError, CheckpointError: as in `subject_of`.
    """
    if not batches or min(batches) < 1:
        raise SizeError(f"a batch of {min(batches, default='no')} images cannot be measured; give 1 or more")
    if not precisions:
        raise TaskError(f"there is no precision to measure in; choose from {', '.join(PRECISIONS)}.")
    for given, known, what in ((precisions, PRECISIONS, "precision"), (against, PEERS, "peer")):
        for name in given:
            if name not in known:
                raise TaskError(f"there is no {what} {name} to measure; choose from {', '.join(known)}.")
    began = time.perf_counter()
    subject = subject_of(model, device)
    prepare(device)
    lists = [",".join(map(str, values)) for values in (batches, precisions, against)]
    options = f"--batch {lists[0]} --precision {lists[1]} --against {lists[2]} --rounds {rounds} --device {device}"
    report: dict[str, Any] = {
        "model": model, "system": subject.system, "device": str(device), "threads": torch.get_num_threads(),
        "seed": SEED, "command": f"zellige bench generate {shlex.quote(model)} {options}",
        "conditions": _conditions(against),
    }  # fmt: skip
    rows: list[Row] = []
    rates: dict[str, dict[str, float]] = {precision: {} for precision in precisions}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for precision in precisions:
            for batch in batches:
                found, rate = _measure(subject, precision, batch, against, rounds, Path(folder))
                rows, rates[precision][str(batch)] = rows + found, rate
                speedups = {f"speedup_{kind}_precision": speedup(rows, kind) for kind in ("same", "any")}
                seconds = time.perf_counter() - began
                yield report | {"results": rows, **speedups, "rates": rates, "seconds": seconds}
                gc.collect()


def judged(images: Tensor, wanted: Tensor, precision: str) -> tuple[float, float]:
    """Return the largest error of images, and their peak signal-to-noise ratio in dB for the peak-to-peak value 2.

    Raises:
        Unmeasured: the images have another shape, or are further from the wanted ones than their precision allows.
    """
    if images.shape != wanted.shape:
        raise Unmeasured(f"wrong: the images are {list(images.shape)}, not {list(wanted.shape)}")
    gap = images - wanted
    error, square = gap.abs().max().item(), gap.double().square().mean().item()
    psnr = min(10 * math.log10(4 / square), _MOST_PSNR) if square > 0 else _MOST_PSNR
    if not (error <= _LARGEST_ERROR if precision == "fp32" else psnr >= _LEAST_PSNR) or math.isnan(square):
        allowed = f"{_LARGEST_ERROR:g} at most" if precision == "fp32" else f"{_LEAST_PSNR:g} dB at least"
        raise Unmeasured(f"wrong: the largest error is {error:.2g}, PSNR {psnr:.1f} dB; {precision} allows {allowed}")
    return error, psnr


def speedup(rows: Sequence[Row], kind: str) -> dict[str, dict[str, float | None]]:
    """Return the best peer's p50 over ours, by our precision and batch; None if either was not timed.

    Args:
        rows: rows of `results`.
        kind: "same" for peers in our precision, or "any".
    """
    found: dict[str, dict[str, float | None]] = {}
    for own in rows:
        if own["runner"] != _OURS:
            continue
        peers = [
            row["p50_ms"] for row in rows
            if row["runner"] != _OURS and row["batch"] == own["batch"] and row["p50_ms"] is not None
            and (kind == "any" or row["precision"] == own["precision"])
        ]  # fmt: skip
        ratio = min(peers) / own["p50_ms"] if peers and own["p50_ms"] else None
        found.setdefault(own["precision"], {})[str(own["batch"])] = ratio
    return found


def _measure(
    subject: Subject, precision: str, batch: int, against: Sequence[str], rounds: int, folder: Path
) -> tuple[list[Row], float]:
    """Return the rows of one precision and batch, and the rate of matrix products in GFLOP/s."""
    device = subject.device
    with FlopCounterMode(display=False) as counter:
        wanted = plain(subject.network)(*subject.inputs(batch))
    operations = counter.get_total_flops()
    right: dict[str, Runner] = {}
    rows: dict[str, Row] = {}
    for name in (_OURS, *against):
        row = {"runner": name, "form": "", "batch": batch, "precision": precision, "max_error": None, "psnr": None}
        rows[name] = row | dict.fromkeys(_FIGURES) | {"gflop_per_image": operations / batch / 1e9, "reason": None}
        try:
            write_graph(name, subject, precision, batch, folder)
            peak = peak_bytes(subject.name, device, name, precision, batch, folder)
            runner = make_runner(name, subject, precision, batch, folder)
            rows[name]["form"] = runner.form
            error, psnr = judged(runner.call(), wanted, precision)
        except Unmeasured as reason:
            rows[name]["reason"] = str(reason)
            continue
        rows[name] |= {"max_error": error, "psnr": psnr, "peak_memory_bytes": peak}
        right[name] = runner
    product, product_operations = matrix_product(DTYPES[precision], device)
    product()
    times = alternate({name: runner.call for name, runner in right.items()} | {"matmul": product}, device, rounds)
    rate = product_operations / float(np.median(times["matmul"]))
    for name in right:
        rows[name] |= _figures(times[name], batch, operations, rate)
    return list(rows.values()), rate / 1e9


def _figures(seconds: Sequence[float], batch: int, operations: int, rate: float) -> Row:
    p50, p95, p99 = np.percentile(seconds, (50, 95, 99)).tolist()
    return {
        "calls": len(seconds), "p50_ms": 1e3 * p50, "p95_ms": 1e3 * p95, "p99_ms": 1e3 * p99,
        "images_per_second": batch / p50, "percent_of_matrix_rate": 100 * operations / p50 / rate,
    }  # fmt: skip


def _conditions(against: Sequence[str]) -> Mapping[str, Any]:
    found = conditions()
    for package in against:
        with suppress(PackageNotFoundError):
            found["versions"][package] = version(package)
    return found
