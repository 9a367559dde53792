"""A journal of steps, with a line when a step begins and one when it ends, so that another process can go on after it.

A kernel that writes outside its memory spoils every later CUDA call of its process, and a kernel that never ends can
only be killed. Neither may cost the results of earlier steps, or the later steps themselves.
"""

import faulthandler
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["SPOILED", "Journal", "read_steps"]

SPOILED = 3  # exit status: CUDA is unusable in this process, so another one has to go on
_LONGEST_ERROR = 4000


class Journal:
    """The journal that a worker writes.

    Args:
        path: of the journal, which holds the steps that ended in earlier processes.
        step_seconds: longest time of a step, after which the process ends itself, with its stack on standard error.
    """

    def __init__(self, path: Path, step_seconds: float) -> None:
        self._path, self._step_seconds = path, step_seconds
        # The journal has a descriptor of its own, because pytest replaces the standard ones while tests run.
        self._stderr = os.fdopen(os.dup(2), "w")
        self._began = 0.0
        self.ended = {step["step"] for step in read_steps(path) if step["state"] != "began"}

    def begin(self, step: str) -> None:
        """Note that a step begins."""
        self._write({"step": step, "state": "began"})
        faulthandler.dump_traceback_later(self._step_seconds, exit=True, file=self._stderr)
        self._began = time.perf_counter()

    def end(self, step: str, state: str, **facts: Any) -> None:
        """Note that a step has passed, failed or been skipped.

        Args:
            step: name of the step.
            state: "passed", "failed" or "skipped".
            facts: `result` or `error`, and anything else that is worth keeping.
        """
        faulthandler.cancel_dump_traceback_later()
        if isinstance(facts.get("error"), str):
            facts["error"] = facts["error"][-_LONGEST_ERROR:]
        self._write({"step": step, "state": state, "seconds": round(time.perf_counter() - self._began, 3)} | facts)
        self.ended.add(step)
        if state == "failed" and _spoiled():
            os._exit(SPOILED)

    def run(self, step: str, call: Callable[[], dict[str, Any]]) -> None:
        """Run a step unless it has ended already."""
        if step in self.ended:
            return
        self.begin(step)
        try:
            result = call()
        except Exception as error:
            self.end(step, "failed", error=f"{type(error).__name__}: {error}")
        else:
            self.end(step, "passed", result=result)

    def _write(self, entry: dict[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def read_steps(path: Path) -> list[dict[str, Any]]:
    """Return the last entry of each step of a journal, in the order in which the steps began."""
    steps: dict[str, dict[str, Any]] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # the process was killed while it wrote
                continue
            steps[entry["step"]] = entry
    return list(steps.values())


def _spoiled() -> bool:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False
