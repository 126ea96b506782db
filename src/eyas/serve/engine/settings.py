"""The engine's settings."""

from __future__ import annotations

import math
from dataclasses import dataclass

from eyas.errors import UserError
from eyas.serve.scheduler.scheduler import MAX_WAITING

MIB = 1 << 20


@dataclass(frozen=True)
class EngineSettings:
    """How bundles are served. Times in seconds, memory in bytes.

    Attributes:
        in_process: run on threads of this process in place of processes: nothing contains a crash then.
        workers: worker processes a model version; None lets the measured profile choose how many at most, and the
            load how many of them run.
        min_workers: with `workers` None, how many run at least.
        threads: CPU threads a worker; None lets the measured profile choose.
        device: the engines' device; see `eyas.load`.
        goal: latency goal, from a request's arrival to its answer, and its default deadline; None for eight times what
            one image takes, and 0.25 s at least.
        max_batch: the largest batch.
        max_waiting: images that may wait in all.
        worker_memory: what a worker may take beyond what it holds once it is warm; 0 for no limit.
        memory_limit: what the workers of all models may hold together: above it the model that was not used for the
            longest time is unloaded until a request wants it; 0 for no limit.
        start_seconds: how long a worker may take until it is warm.
        batch_seconds: how long a batch may take before its worker is killed.

    Raises:
        UserError: a value is out of range.
    """

    in_process: bool = False
    workers: int | None = None
    min_workers: int = 1
    threads: int | None = None
    device: str = "auto"
    goal: float | None = None
    max_batch: int = 8
    max_waiting: int = MAX_WAITING
    worker_memory: int = 2048 * MIB
    memory_limit: int = 0
    start_seconds: float = 120.0
    batch_seconds: float = 30.0

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        least: dict[str, float] = {
            "min_workers": 1, "max_batch": 1, "max_waiting": 1, "worker_memory": 0, "memory_limit": 0,
            "start_seconds": 0.01, "batch_seconds": 0.01,
        }  # fmt: skip
        optional: dict[str, float] = {"workers": 1, "threads": 1, "goal": 0.001}
        least |= {name: bound for name, bound in optional.items() if vars(self)[name] is not None}
        for name, bound in least.items():
            if not bound <= vars(self)[name] < math.inf:
                raise UserError(f"{name} is {vars(self)[name]}.", expected=f"at least {bound:g}", where=name)
