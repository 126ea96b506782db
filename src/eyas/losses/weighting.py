"""How the terms of a loss are weighed against each other: a row of `WEIGHTINGS` is all that another way needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from eyas.errors import row_of
from eyas.losses.criterion import Criterion
from eyas.losses.uncertainty import UncertaintyWeighting

# The recipe's `loss.weighting` -> what becomes of a criterion.
WEIGHTINGS: Mapping[str, Callable[[Criterion], Criterion]] = MappingProxyType(
    {
        "fixed": lambda criterion: criterion,
        "uncertainty": UncertaintyWeighting,
    }
)


def weighed(criterion: Criterion, weighting: str) -> Criterion:
    """Return the criterion with its terms weighed in the way of that name.

    Raises:
        UserError: there is none of that name; the nearest is suggested.
    """
    return row_of(WEIGHTINGS, weighting, "There is no weighting", "loss.weighting")(criterion)
