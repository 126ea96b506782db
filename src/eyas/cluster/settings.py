"""How bundles are served on a cluster."""

from __future__ import annotations

import math
from dataclasses import dataclass

from eyas.errors import UserError


@dataclass(frozen=True)
class ClusterSettings:
    """How bundles are served on a cluster. Times in seconds.

    Attributes:
        min_replicas, max_replicas: how many replicas there are, by load.
        cpus, gpus: what a replica takes of its node; parts of one are allowed.
        models: versions of models that a replica holds at once; the one that was not used for the longest time makes
            room for another.
        retries: how often a request is given to another replica after the one that had it was lost.
        patience: after which a replica that has not answered counts as lost, beyond what the request may wait in line.
        up_after, down_after: for how long there must have been a reason to add replicas, or to take some away.

    Raises:
        UserError: a value is out of range.
    """

    min_replicas: int = 1
    max_replicas: int = 4
    cpus: float = 1.0
    gpus: float = 0.0
    models: int = 4
    retries: int = 2
    patience: float = 5.0
    up_after: float = 1.0
    down_after: float = 30.0

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if not 1 <= self.min_replicas <= self.max_replicas:
            raise UserError(
                f"{self.min_replicas} to {self.max_replicas} replicas is not a range.", expected="1 <= min <= max"
            )
        least: dict[str, float] = {"cpus": 0, "gpus": 0, "models": 1, "retries": 0, "up_after": 0, "down_after": 0}
        for name, bound in least.items():
            if not bound <= vars(self)[name] < math.inf:
                raise UserError(f"{name} is {vars(self)[name]}.", expected=f"at least {bound:g}", where=name)
        if not 0 < self.patience < math.inf:
            raise UserError(f"patience is {self.patience}.", expected="seconds above 0", where="patience")

    @property
    def tries(self) -> int:
        """How often a request is given to a replica at most."""
        return 1 + self.retries
