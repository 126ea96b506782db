"""The factories of layers that a recipe may name: a file and a row each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from eyas.errors import UserError, suggest
from eyas.models.layers import LAYERS, Layers

# The recipe's `model.layers` -> what a network is trained with. A run says nothing of it: whatever reads its weights
# makes plain layers, so those of a row have the same names and shapes.
FACTORIES: Mapping[str, Layers] = MappingProxyType(
    {
        "plain": LAYERS,
    }
)


def factory_of(name: str) -> Layers:
    """Return the factory of that name.

    Raises:
        UserError: there is none; the nearest name is suggested.
    """
    if name not in FACTORIES:
        raise UserError(
            f"There are no layers '{name}'{suggest(name, FACTORIES)}.",
            expected="one of " + ", ".join(FACTORIES),
            where="model.layers",
        )
    return FACTORIES[name]
