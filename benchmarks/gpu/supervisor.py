"""Runs a part in processes of its own: starts them, replaces one that a step has killed, and stops them in time."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .journal import SPOILED, read_steps

__all__ = ["Options", "run_part"]

_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Options:
    """The options of all parts.

    Attributes:
        device: "cuda", or "cpu" for a rehearsal.
        kernels: names of kernels to compile, tune and measure; empty means all.
        dtypes: of the kernels' inputs.
        against: peers to measure beside them.
        select: pytest's arguments that choose tests.
        out: folder of the results.
        command: the command that was given, for the record.
        step_seconds: seconds after which a step counts as hung.
        shard: number of this process among those that share the part's steps.
        shards: number of processes that share the part's steps.
    """

    device: str
    kernels: tuple[str, ...]
    dtypes: tuple[str, ...]
    against: tuple[str, ...]
    select: tuple[str, ...]
    out: str
    command: str = ""
    step_seconds: float = 90.0
    shard: int = 0
    shards: int = 1


def run_part(part: str, options: Options, seconds: float, work: Path) -> dict[str, Any]:
    """Run a part and write OUT/PART.json, anew whenever a step ends.

    Args:
        part: name of the part.
        options: `shards` processes share its steps.
        seconds: time limit, after which processes that still run are killed.
        work: folder for journals and logs.
    Returns:
        The content of the file: `part`, `passed`, `seconds`, `limit_seconds`, `stopped` (whether time ran out), and
        `steps`, each with `step`, `state`, `seconds`, and `result` or `error`. While the part runs, `passed` is false.
    """
    began = time.monotonic()
    shards = [replace(options, shard=k, shards=options.shards) for k in range(options.shards)]
    journals = [work / f"{part}-{k}.jsonl" for k in range(options.shards)]
    file = Path(options.out) / f"{part}.json"

    def report(stopped: bool | None) -> dict[str, Any]:
        steps = {step["step"]: step for journal in journals for step in read_steps(journal)}
        states = [step["state"] for step in steps.values()]
        return {
            "part": part,
            # If no step passed, the part has shown nothing, so it fails. But there may be nothing to profile.
            "passed": stopped is False and "failed" not in states and ("passed" in states or part == "profile"),
            "seconds": round(time.monotonic() - began, 1),
            "limit_seconds": round(seconds, 1),
            "stopped": bool(stopped),
            "steps": list(steps.values()),
        }

    with ThreadPoolExecutor(len(shards)) as pool:
        deadline = began + seconds
        cancelled = threading.Event()
        running = [pool.submit(_work, part, *pair, deadline, cancelled) for pair in zip(shards, journals, strict=True)]
        size = -1
        try:
            while not all(future.done() for future in running):
                time.sleep(_POLL_SECONDS)
                if (now := sum(path.stat().st_size for path in journals if path.exists())) != size:
                    size = now
                    _write(file, report(None))
        finally:
            cancelled.set()
    result = report(any(future.result() for future in running))
    _write(file, result)
    return result


def _work(part: str, options: Options, journal: Path, deadline: float, cancelled: threading.Event) -> bool:
    """Run one shard to its end, in as many processes as it takes, and return whether it was stopped."""
    log = journal.with_suffix(".log")
    command = [sys.executable, "-m", "zellige.benchmarks.gpu.worker", part, json.dumps(asdict(options)), str(journal)]
    threads = max(1, (os.cpu_count() or 1) // options.shards)
    # The part `tune` tunes once, and later parts read its choices. Choices that were tuned while other processes used
    # the device are not kept.
    environment = {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    environment["TRITON_CACHE_AUTOTUNING"] = str(int(options.shards == 1))
    ended = -1
    while True:
        with log.open("ab") as output:
            said = output.tell()
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env=os.environ | environment, start_new_session=True,
            )  # fmt: skip
        while process.poll() is None and time.monotonic() < deadline and not cancelled.is_set():
            time.sleep(_POLL_SECONDS / 5)
        stopped = process.poll() is None
        # The whole process group is killed, so that compilers and other children of the worker end too.
        _kill(process)
        steps = read_steps(journal)
        open_steps = [step["step"] for step in steps if step["state"] == "began"]
        if stopped:
            _append(journal, [{"step": step, "state": "stopped", "error": "time ran out"} for step in open_steps])
            return True
        if process.returncode == 0:
            return False
        error = _how_it_ended(process.returncode, log.read_bytes()[said:].decode(errors="replace"))
        _append(journal, [{"step": step, "state": "failed", "error": error} for step in open_steps])
        now = sum(step["state"] != "began" for step in steps) + len(open_steps)
        if now <= ended or (process.returncode != SPOILED and not open_steps):
            # It did not die of a step, so another process would end the same way.
            _append(journal, [{"step": part, "state": "failed", "error": error}])
            return False
        ended = now


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _how_it_ended(status: int, said: str) -> str:
    if "Timeout (" in said:  # faulthandler writes this, with the innermost function first
        return f"no end within the limit of a step\n{said[said.index('Timeout (') :][:2000]}"
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    return f"the process {how}\n{said[-2000:]}"


def _append(journal: Path, entries: list[dict[str, Any]]) -> None:
    with journal.open("a", encoding="utf-8") as file:
        # The first newline ends a line that a kill cut off.
        file.writelines("\n" + json.dumps(entry) + "\n" for entry in entries)


def _write(file: Path, report: dict[str, Any]) -> None:
    """Write a report whole or not at all."""
    temporary = file.with_suffix(".part")
    temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    temporary.replace(file)
