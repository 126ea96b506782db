"""The assigner's constants, apart from the code so that a recipe can be read without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TaskAlignedSettings:
    """The constants of task-aligned assignment.

    Attributes:
        top_k: how many anchor points an object may take at most.
        alpha: exponent of the class score in the alignment metric.
        beta: exponent of the IoU in the alignment metric.
    """

    top_k: int = 13
    alpha: float = 1.0
    beta: float = 6.0
