"""The example for people with a Trainer of their own runs, and the manual shows the same code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "own_trainer.py"


def test_the_example_runs(shapes: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), str(shapes)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "tensor(" in done.stdout


def test_the_manual_shows_it_in_fifteen_lines() -> None:
    code = EXAMPLE.read_text().split('"""')[2].replace("  # noqa: F401", "")  # what the linter is told
    lines = [line for line in code.splitlines() if line.strip() and line not in ("import sys", "# isort: split")]
    assert len(lines) <= 15
    manual = (ROOT / "docs" / "training.md").read_text()
    assert all(line.replace("sys.argv[1]", '"data/shapes"') in manual for line in lines)
