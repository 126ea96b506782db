"""The factories of layers that a recipe may name: a file and a row each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from eyas.errors import row_of
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
    return row_of(FACTORIES, name, "There are no layers", "model.layers")
