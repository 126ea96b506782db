"""Which anchor point learns which object: pure functions of tensors."""

from __future__ import annotations

from eyas.assign.task_aligned import Assignment, TaskAlignedSettings, task_aligned

__all__ = ["Assignment", "TaskAlignedSettings", "task_aligned"]
