"""Options of a call: classes by name, and the batch size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from eyas.errors import UserError, suggest
from eyas.types import IntArray


def labels_of(chosen: object, classes: tuple[str, ...]) -> IntArray | None:
    """Return the labels of the class names chosen, sorted; None for None.

    Args:
        chosen: a name, or any number of them.
        classes: the model's class names in label order.

    Raises:
        UserError: there is no such class (the nearest one is suggested), or it is given as something else than a name.
    """
    if chosen is None:
        return None
    expected = "some of " + shortened(classes)
    if not isinstance(chosen, Iterable) or isinstance(chosen, bytes | Mapping):
        raise UserError(f"The classes are given as {type(chosen).__name__}.", where="classes", expected=expected)
    names = [chosen] if isinstance(chosen, str) else list(chosen)
    if not names:
        raise UserError("The list of classes is empty.", where="classes", expected=f"{expected}; None for all")
    for name in names:
        if not isinstance(name, str):
            number = isinstance(name, int | np.integer) and not isinstance(name, bool)
            fix = f"classes=['{classes[name]}']" if number and 0 <= name < len(classes) else ""
            raise UserError(
                f"A class is given as {name!r}, not as a name.", where="classes", expected=expected, fix=fix
            )
        if name not in classes:
            hint = suggest(name, classes)
            raise UserError(f"The model has no class '{name}'{hint}.", where="classes", expected=expected)
    return np.array([label for label, name in enumerate(classes) if name in names], np.int64)


def check_batch(batch: object) -> None:
    """Refuse what is no number of images.

    Raises:
        UserError: it isn't a whole number of at least 1.
    """
    if not isinstance(batch, int | np.integer) or isinstance(batch, bool) or batch < 1:
        raise UserError(f"The batch is {batch!r}.", expected="a whole number, at least 1", where="batch")


def shortened(names: Sequence[str], most: int = 12) -> str:
    """Return the names in one line, the first few if they are many."""
    return ", ".join(names[:most]) + (f", … and {len(names) - most} more" if len(names) > most else "")
