from typing import Any


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How much the model checker has seen."""
    for report in terminalreporter.stats.get("passed", ()):
        for name, value in report.user_properties:
            if name == "states":
                terminalreporter.write_line(f"{value:,} states: {report.nodeid.split('::')[-1]}")
