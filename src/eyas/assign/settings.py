"""The assigner's constants, apart from the code so that a recipe can be read without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from eyas.errors import UserError, suggest

Conflicts = Literal["takers", "all"]


@dataclass(frozen=True)
class TaskAlignedSettings:
    """Settings of task-aligned assignment.

    Attributes:
        top_k: maximum number of anchor points per object.
        alpha: exponent of the class score in the alignment metric.
        beta: exponent of the IoU in the alignment metric.
        conflicts: which object gets an anchor point selected by several: the one among these with the highest IoU
            ("takers", as in the paper), or the one among all objects of the image ("all", as in SuperGradients; it may
            be an object that did not select the point or does not contain it).
    """

    top_k: int = 13
    alpha: float = 1.0
    beta: float = 6.0
    conflicts: Conflicts = "takers"

    def __post_init__(self) -> None:
        """Refuse a rule that there is not."""
        if self.conflicts not in get_args(Conflicts):
            raise UserError(
                f"Unknown conflict rule '{self.conflicts}'{suggest(self.conflicts, get_args(Conflicts))}.",
                where="conflicts",
                expected="one of " + ", ".join(get_args(Conflicts)),
            )
