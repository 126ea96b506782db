"""Bringing a dataset's labels into a model's order, by the classes' names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eyas.data.index import DatasetIndex
from eyas.errors import UserError, shorten, suggest


def align_classes(index: DatasetIndex, classes: Sequence[str]) -> tuple[DatasetIndex, tuple[str, ...]]:
    """Return the dataset with its labels in the order of the model's `classes`, and the classes only the model knows.

    Detections of a class that the dataset doesn't label can't be judged: such a class has no AP and is left out of
    the mean.

    Raises:
        UserError: the dataset has boxes of classes that the model doesn't know; the message names each, its boxes
            and the nearest class of the model.
    """
    known = set(classes)
    counts = np.bincount(index.labels, minlength=len(index.classes))
    unknown = [
        f"'{name}' ({count:,} {'box' if count == 1 else 'boxes'}){suggest(name, classes)}"
        for name, count in zip(index.classes, counts.tolist(), strict=True)
        if count and name not in known
    ]
    if unknown:
        raise UserError(
            f"The dataset has classes that the model does not know: {shorten(unknown, 10)}.",
            where=f"{index.root}, split '{index.split}'",
            expected="classes among " + shorten([f"'{name}'" for name in classes], 20),
            fix="rename the classes in the annotations to the model's names (compared exactly), or evaluate a model "
            "trained with these classes",
        )
    missing = tuple(name for name in classes if name not in index.classes)
    return index.with_classes(classes), missing
