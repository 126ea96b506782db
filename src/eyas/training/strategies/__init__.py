"""How several processes train together: a row of `STRATEGIES` is all that another way needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from lightning.pytorch.strategies import Strategy

from eyas.errors import row_of
from eyas.training.recipe import TrainerRecipe
from eyas.training.strategies.choice import automatic, data_parallel

# The recipe's `trainer.strategy` -> what gives Lightning's strategy, or its name.
STRATEGIES: Mapping[str, Callable[[TrainerRecipe], Strategy | str]] = MappingProxyType(
    {"auto": automatic, "ddp": data_parallel}
)


def strategy_of(trainer: TrainerRecipe) -> Strategy | str:
    """Return Lightning's strategy that the recipe means, or its name.

    Raises:
        UserError: there is none of that name; the nearest is suggested.
    """
    return row_of(STRATEGIES, trainer.strategy, "There is no strategy", "trainer.strategy")(trainer)
