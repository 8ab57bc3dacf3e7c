"""Tests that count: a tenth of the promised number by default, all of it under `make stress`, and the counts printed."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

FULL = bool(os.environ.get("LLM_JUPYTER_STRESS"))
_NAME = "count"
_LINES: list[str] = []


def times(promised: int) -> int:
    """How often to do what is promised for so many times."""
    return promised if FULL else max(1, promised // 10)


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Says how often something was done; the line stands in the summary of the run, whichever process the test ran in."""
    return lambda line: request.node.user_properties.append((_NAME, line))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call":
        _LINES.extend(str(line) for name, line in report.user_properties if name == _NAME)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _LINES:
        terminalreporter.section("counts")
        for line in _LINES:
            terminalreporter.write_line(line)
