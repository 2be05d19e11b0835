"""
Figures that tests tell, in all rings: at the end of the run, since nobody sees what a test that
passes prints. A plugin of pytest.

They travel in the report of their test, so that those of xdist's workers come along.
"""

from __future__ import annotations

import pytest

KEY = "figure"
_told: list[str] = []


def tell_figure(line: str) -> None:
    """Of the test that runs: short, and with its unit."""
    _told.append(line)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    item.user_properties += [(KEY, line) for line in _told]
    _told.clear()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for some in terminalreporter.stats.values() for report in some]
    told = [
        str(value)
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "teardown"
        for key, value in report.user_properties
        if key == KEY
    ]
    if told:
        terminalreporter.section("figures")
    for line in told:
        terminalreporter.write_line(line)
