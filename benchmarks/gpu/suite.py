"""The part `tests`: pytest runs in the worker's process, and every test is a step."""

import os
from pathlib import Path

import pytest

from .journal import Journal
from .supervisor import Options

__all__ = ["run_tests"]

# The path is resolved, because benchmarks/ may be reached through a link that makes it zellige.benchmarks.
ROOT = Path(__file__).resolve().parents[2]


def run_tests(journal: Journal, options: Options) -> int:
    """Run this shard's tests; the status is 0 unless pytest itself failed."""
    arguments = ["--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider", "--tb=short",
                 "--continue-on-collection-errors", *options.select]  # fmt: skip
    os.chdir(ROOT)  # here pytest finds the tests by itself
    status = pytest.main(arguments, plugins=[_Steps(journal, options)])
    return 0 if status in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED) else 2


class _Steps:
    """A plugin of pytest that deals out the tests and writes the journal."""

    def __init__(self, journal: Journal, options: Options) -> None:
        self._journal, self._options = journal, options
        self._state, self._facts = "passed", dict[str, str]()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a file that cannot be imported as a test that failed."""
        if report.failed and report.nodeid not in self._journal.ended:
            self._journal.begin(report.nodeid)
            self._journal.end(report.nodeid, "failed", error=report.longreprtext)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Keep every n-th test for n shards, so that neighbours, which take equally long, go to different processes."""
        mine = items[self._options.shard :: self._options.shards]
        items[:] = [item for item in mine if item.nodeid not in self._journal.ended]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Note that a test begins."""
        self._state, self._facts = "passed", {}
        self._journal.begin(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the result of set-up, call or tear-down; the first of them that did not pass is reported."""
        if self._state == "passed" and not report.passed:
            # For a skip, `longrepr` is file, line and reason.
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
            self._state, self._facts = report.outcome, {"error": reason}

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Note that a test has ended."""
        self._journal.end(nodeid, self._state, **self._facts)
