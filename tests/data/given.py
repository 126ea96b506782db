"""Watches what loader processes are given, and how many are started."""

from __future__ import annotations

from typing import Any

import pytest

from eyas.data.loading import worker_group as crew
from eyas.data.loading.batch_arrays import Task


class Tasks:
    """Notes what workers are given, and how many processes were started."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.given: list[Task] = []
        self.started = 0
        give, start = crew.Member.give, crew._start

        def noted(member: crew.Member, turn: int, task: Task) -> None:
            self.given.append(task)
            give(member, turn, task)

        def counted(*arguments: Any) -> Any:
            self.started += 1
            return start(*arguments)

        patch.setattr(crew.Member, "give", noted)
        patch.setattr(crew, "_start", counted)
