"""The command: `python -m zellige.benchmarks.gpu`, or `make gpu` from a checkout without an installation."""

import argparse
import os
import shlex
import sys
import tempfile
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from zellige.errors import DeviceError, OutputError, TaskError, ZelligeError

from .supervisor import Options, run_part
from .tables import closing_table, describe

__all__ = ["main"]

# Shares of the time. A part may use the time that the parts before it left over.
PARTS = {"conditions": 1, "tests": 7, "compile": 6, "tune": 2, "bench": 10, "generate": 6, "panorama": 2, "profile": 2}
DEFAULT = ("conditions", "tests", "compile", "tune", "bench", "generate", "panorama")
# Several processes share these parts. The others measure, so they have the device to themselves.
SHARED = ("tests", "compile")
_IMPORTED = ("numpy", "PIL", "pydantic", "rich", "safetensors", "torch", "typer")
_IMPORTED_BY_TESTS = ("hypothesis", "pytest")
_BYTES_A_PROCESS = 8 * 2**30
_MOST_PROCESSES = 12
_LONGEST_LOG = 8 * 2**20
_ONCE_STARTED = 2.0  # seconds that a part gets at least, so that its file says which steps were cut short


def main(arguments: list[str] | None = None) -> int:
    """Run the chosen parts; return 0 if all passed, 1 if one failed."""
    parser = argparse.ArgumentParser("python -m zellige.benchmarks.gpu", description="Test and measure on a GPU.")
    parser.add_argument("--parts", default=",".join(DEFAULT), help=f"of {','.join(PARTS)}; default all but profile")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gpu"), help="folder of the JSON files")
    parser.add_argument("--limit", type=float, default=450, help="seconds for everything; default 450")
    parser.add_argument("--kernels", default="", help="of those in `zellige bench kernels`; default all")
    parser.add_argument("--dtypes", default="bfloat16,float32,float16", help="in the order in which they are measured")
    parser.add_argument("--against", default="eager,compile,sdpa,liger", help="peers of `zellige bench kernels`")
    parser.add_argument("--select", default="-m gpu", help="pytest's arguments that choose tests; default '-m gpu'")
    parser.add_argument("--processes", type=int, help="that share the tests and the compiling; default by cores")
    parser.add_argument("--step-limit", type=float, default=100, help="seconds until a test or step counts as hung")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu is for a rehearsal")
    given = parser.parse_args(arguments)
    try:
        parts = _chosen(given.parts)
        _check(parts, given.device)
        try:
            given.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{given.out} cannot be written: {error.strerror}.") from error
    except ZelligeError as error:
        print(f"zellige: {error}", file=sys.stderr)
        return 2
    options = Options(
        device=given.device, kernels=_words(given.kernels), dtypes=_words(given.dtypes), against=_words(given.against),
        select=tuple(shlex.split(given.select)), out=str(given.out.resolve()),
        command=shlex.join(["python", "-m", "zellige.benchmarks.gpu", *(arguments or sys.argv[1:])]),
        step_seconds=given.step_limit,
    )  # fmt: skip
    processes = given.processes or _processes(given.device)
    reports = _run(parts, options, processes, given.limit)
    print(closing_table(reports))
    return 0 if all(report["passed"] for report in reports) else 1


def _run(parts: list[str], options: Options, processes: int, limit: float) -> list[dict[str, Any]]:
    began, reports = time.monotonic(), []
    log = Path(options.out) / "log.txt"
    log.write_bytes(b"")
    with tempfile.TemporaryDirectory() as folder:
        for k, part in enumerate(parts):
            left = limit - (time.monotonic() - began)
            seconds = max(left * PARTS[part] / sum(PARTS[name] for name in parts[k:]), _ONCE_STARTED)
            shards = processes if part in SHARED else 1
            print(f"{part}: up to {seconds:.0f} s in {shards} process{'es' * (shards > 1)}", flush=True)
            report = run_part(part, replace(options, shards=shards), seconds, Path(folder))
            for line in describe(report):
                print(f"  {line}", flush=True)
            reports.append(report)
            with log.open("ab") as file:
                for piece in sorted(Path(folder).glob(f"{part}-*.log")):
                    content = piece.read_bytes()
                    share = _LONGEST_LOG // len(parts) // shards
                    file.write(f"== {piece.stem}\n".encode() + content[-share:] + b"\n")
    return reports


def _chosen(text: str) -> list[str]:
    names = _words(text)
    for name in names:
        if name not in PARTS:
            raise TaskError(f"there is no part {name!r}; choose from {', '.join(PARTS)}.")
    if not names:
        raise TaskError(f"no part is chosen; choose from {', '.join(PARTS)}.")
    return [name for name in PARTS if name in names]


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.replace(" ", ",").split(",") if word)


def _check(parts: list[str], device: str) -> None:
    """Refuse a run that cannot work, before anything is started."""
    needed = _IMPORTED + (_IMPORTED_BY_TESTS if "tests" in parts else ()) + (("triton",) if device == "cuda" else ())
    if missing := [name for name in needed if find_spec(name) is None]:
        raise ZelligeError(f"this Python lacks {', '.join(missing)}; put them on PYTHONPATH or install them.")
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise DeviceError("this machine has no CUDA device that torch can use, and `make gpu` is for those only.")


def _processes(device: str) -> int:
    """Return the number of processes: as many as there are cores and as have 8 GiB of the device's memory each."""
    most = min(os.cpu_count() or 1, _MOST_PROCESSES)
    if device == "cuda":
        import torch

        most = min(most, torch.cuda.get_device_properties(0).total_memory // _BYTES_A_PROCESS)
    return max(1, most)


if __name__ == "__main__":
    sys.exit(main())
