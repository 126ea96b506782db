"""How many replicas there should be: the rule of one machine, with the replicas' numbers, in Ray Serve's controller."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping
from typing import Any, Protocol

from eyas.serve.engine.autoscale import Autoscaler, ScaleConfig, Signal
from eyas.serve.scheduler.model import ModelStats

DEMAND, QUEUE_DELAY = "eyas_demand", "eyas_queue_delay"


class Context(Protocol):
    """What Ray Serve's controller tells a policy, as far as it is used here."""

    target_num_replicas: int
    current_num_replicas: int

    @property
    def aggregated_metrics(self) -> Mapping[str, Mapping[Hashable, float]] | None:
        """Metric -> replica -> its mean of the last seconds."""


def replica_metrics(stats: Mapping[str, ModelStats]) -> dict[str, float]:
    """Return what a replica tells the controller.

    Args:
        stats: of its engine's versions.
    """
    workers = sum(each.workers for each in stats.values())
    demand = sum(each.demand for each in stats.values())
    delay = max((each.queue_delay for each in stats.values()), default=0.0)
    return {DEMAND: demand / max(1, workers), QUEUE_DELAY: delay}


def cluster_signal(context: Context) -> Signal:
    """Return the signal of all replicas: one replica counts as one worker."""
    metrics = context.aggregated_metrics or {}
    replicas = context.target_num_replicas
    return Signal(
        workers=replicas,
        starting=max(0, replicas - context.current_num_replicas),
        demand=sum(metrics.get(DEMAND, {}).values()),
        queue_delay=max(metrics.get(QUEUE_DELAY, {}).values(), default=0.0),
    )


class QueueDelayPolicy:
    """The autoscaler as a policy of Ray Serve, which makes one for a deployment and calls it several times a second.

    Args:
        bounds: the fields of `ScaleConfig`.
    """

    def __init__(self, **bounds: Any) -> None:
        self._scaler = Autoscaler(ScaleConfig(**bounds))

    def __call__(self, context: Context) -> tuple[int, dict[str, Any]]:
        """Return how many replicas there should be, and no state: this object keeps it."""
        return self._scaler.decide(time.monotonic(), cluster_signal(context)), {}
