"""Runs a pytest file in the tests' box, and tells how each of its tests ended."""

from __future__ import annotations

import os
import sys

sys.path.insert(0, "pytest.zip")
import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from haloforge.verify.function.tester import Tester

OPTIONS = "-c /dev/null --rootdir=. --assert=plain --capture=no"
NEEDLESS = ("cacheprovider", "terminal", "faulthandler", "junitxml", "pastebin", "doctest")


class Recorder:
    """Counts by pytest's own reports: a test passed if set-up, call and tear-down did."""

    def __init__(self, tester: Tester) -> None:
        self.tester = tester
        self.reasons: dict[str, BaseException] = {}
        self.failed: set[str] = set()
        self.broken: BaseException | None = None
        self.recorded = 0

    def record(self, session: pytest.Session, name: str, error: BaseException | None) -> None:
        self.recorded += 1
        try:
            self.tester.record(name, error)
        except Exception as broken:  # not one for pytest to report
            self.broken = broken
        if self.broken or self.tester.client.lost:
            session.shouldstop = "no test can go on"

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.tester.tell(total=len(session.items))

    def pytest_exception_interact(self, node: Any, call: Any, report: Any) -> None:
        if isinstance(report, pytest.CollectReport):
            error = call.excinfo.value
            self.record(node.session, node.nodeid, error.__cause__ or error)

    def pytest_runtest_makereport(self, item: pytest.Item, call: Any) -> None:
        if call.excinfo is not None:
            self.reasons.setdefault(item.nodeid, call.excinfo.value)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        result = yield
        error = self.reasons.get(item.nodeid)
        if error is None and item.nodeid in self.failed:
            error = AssertionError("it passed, and was to fail")
        self.record(item.session, item.name, error)
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome != "passed":
            self.failed.add(report.nodeid)


def run(tester: Tester) -> None:
    """Runs tests.py. Raises what its `record` raises where the tests are at fault."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    recorder = Recorder(tester)
    options = [part for name in NEEDLESS for part in ("-p", f"no:{name}")]
    code = pytest.main([*OPTIONS.split(), *options, "tests.py"], plugins=[recorder])
    if recorder.broken:
        raise recorder.broken
    if not recorder.recorded:
        name = pytest.ExitCode(code).name.lower().replace("_", " ")
        tester.record("pytest", RuntimeError(f"pytest ended with {name}"))
