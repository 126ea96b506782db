"""Target x precision of the middle rows of the zoo gives the trained network's answers; see `matrix`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.export.parity.matrix import MIDDLE, Case, Graphs, cases, check_row


@pytest.mark.parametrize("case", cases(MIDDLE), ids="-".join)
def test_row(case: Case, runs: Callable[[str], Path], graphs: Graphs, data: Path, tmp_path: Path) -> None:
    check_row(case, runs(case[0]), graphs, data, tmp_path / "bundle")
