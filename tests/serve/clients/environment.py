"""Environments of their own for other people's programs: what they need does not go together with what we need."""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
import venv
from pathlib import Path

import pytest

PACKAGES = ("tritonclient[http,grpc]==2.73.0", "schemathesis==4.32.5")


def clients_python() -> Path:
    """Return the Python that has the clients."""
    return python_with("clients", PACKAGES)


def python_with(name: str, packages: tuple[str, ...]) -> Path:
    """Return the Python of an environment with these packages, made beside our own when it is first asked for."""
    folder = Path(sys.prefix) / f"{name}-{hashlib.sha256(' '.join(packages).encode()).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    complete = folder / "complete"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests in several processes wait for the one that makes it
        if not complete.exists():
            _make(folder, python, packages)
            complete.touch()
    return python


def _make(folder: Path, python: Path, packages: tuple[str, ...]) -> None:
    venv.create(folder, with_pip=True, clear=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode:
        if "No matching distribution" in done.stderr or "Connection" in done.stderr:
            pytest.skip(f"no package index can be reached, so there is nothing to test with: {done.stderr[-300:]}")
        raise AssertionError(done.stderr)
