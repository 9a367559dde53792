"""A process that works through the steps of a part: `python -m zellige.benchmarks.gpu.worker PART OPTIONS JOURNAL`."""

import json
import sys
from pathlib import Path
from typing import Any

from .journal import Journal
from .supervisor import Options

__all__ = ["main"]


def main(part: str, options_json: str, journal_path: str) -> None:
    """Run the steps of one shard that have not ended yet."""
    given: dict[str, Any] = json.loads(options_json)
    given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    options = Options(**given)
    journal = Journal(Path(journal_path), options.step_seconds)
    if part == "tests":
        # This import comes first, because tests decide whether Triton interprets before any kernel is imported.
        from .suite import run_tests

        sys.exit(run_tests(journal, options))

    from .parts import STEPS

    for number, (step, call) in enumerate(STEPS[part](options)):
        if number % options.shards == options.shard:
            journal.run(step, call)


if __name__ == "__main__":
    main(*sys.argv[1:])
