"""The assigner's constants, apart from the code so that a recipe can be read without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from eyas.errors import UserError, suggest

Conflicts = Literal["takers", "all"]


@dataclass(frozen=True)
class TaskAlignedSettings:
    """The constants of task-aligned assignment.

    Attributes:
        top_k: how many anchor points an object may take at most.
        alpha: exponent of the class score in the alignment metric.
        beta: exponent of the IoU in the alignment metric.
        conflicts: who gets an anchor point that several objects took: the one of these that it overlaps most
            ("takers", as the paper has it), or the one of all objects of the image ("all", as SuperGradients has
            it: also an object that did not take the point, or in which it does not lie).
    """

    top_k: int = 13
    alpha: float = 1.0
    beta: float = 6.0
    conflicts: Conflicts = "takers"

    def __post_init__(self) -> None:
        """Refuse a rule that there is not."""
        if self.conflicts not in get_args(Conflicts):
            raise UserError(
                f"Unknown rule for conflicts '{self.conflicts}'{suggest(self.conflicts, get_args(Conflicts))}.",
                where="conflicts",
                expected="one of " + ", ".join(get_args(Conflicts)),
            )
