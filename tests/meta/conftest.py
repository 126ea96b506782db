"""At the end of the meta tests, name the files that are getting long."""

from __future__ import annotations

import pytest
from tests.meta.source import ROOT, modules

LONG = 250  # lines


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the modules of more than LONG lines; that is allowed, and a hint that two ideas share a file."""
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in modules().values()}
    rows = sorted(((lines, path) for path, lines in lengths.items() if lines > LONG), reverse=True)
    for lines, path in rows:
        terminalreporter.write_line(f"long file: {path.relative_to(ROOT)} has {lines} lines (aim at {LONG})")
