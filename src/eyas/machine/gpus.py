"""The NVIDIA GPUs of this machine."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass

DRIVER_SECONDS = 30.0


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU, as its driver describes it; `compute_capability` is, for example, "8.9"."""

    name: str
    compute_capability: str
    memory: str
    driver: str


def gpus() -> tuple[Gpu, ...]:
    """Return the NVIDIA GPUs that `nvidia-smi`, which comes with the driver, tells of."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = [program, "--query-gpu=name,compute_cap,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=DRIVER_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    lines = [] if done.returncode else done.stdout.splitlines()
    rows = [[cell.strip() for cell in line.split(",")] for line in lines]
    return tuple(Gpu(*row) for row in rows if len(row) == 4)
