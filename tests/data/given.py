"""Watches what loader processes are given, and how many are started."""

from __future__ import annotations

from typing import Any

import pytest

from eyas.data.loading import worker_group as workers
from eyas.data.loading.batch_arrays import Task


class Tasks:
    """Notes what workers are given, and how many processes were started."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.given: list[Task] = []
        self.started = 0
        give, start = workers.Member.give, workers._start

        def noted(member: workers.Member, turn: int, task: Task) -> None:
            self.given.append(task)
            give(member, turn, task)

        def counted(*arguments: Any) -> Any:
            self.started += 1
            return start(*arguments)

        patch.setattr(workers.Member, "give", noted)
        patch.setattr(workers, "_start", counted)
