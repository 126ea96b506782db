"""Several indexes: brought to the same classes, or made one."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from eyas.data.index import DatasetIndex, id_columns
from eyas.data.paths import FileTable, offsets_of
from eyas.errors import UserError, shorten, suggest


def same_classes(
    splits: Mapping[str, DatasetIndex], where: str, name: str, *, unseen: bool = False
) -> dict[str, DatasetIndex]:
    """Return the splits with their labels in the order of the classes of one of them, the training split.

    Classes are matched by name. A split may list them in another order, or fewer; that is told.

    With `unseen`, splits may have classes of which the training split has none: these come after its own, in the order
    in which the splits list them, in every split but itself. So a label of training means the same class everywhere.

    Args:
        splits: by name.
        where: the dataset, for the error.
        name: the training split.
        unseen: whether the model can find classes that it was not trained on.

    Raises:
        UserError: a split has boxes of a class that the training split does not list, and the model can't find such.
    """
    wanted = splits[name].classes
    known = set(wanted)
    every = tuple(dict.fromkeys([*wanted, *(each for index in splits.values() for each in index.classes)]))
    result = {}
    for other, index in splits.items():
        boxes = np.bincount(index.labels, minlength=len(index.classes)).tolist()
        unknown = {each: num for each, num in zip(index.classes, boxes, strict=True) if each not in known}
        strange = [each for each, num in unknown.items() if num]
        if strange and not unseen:
            raise UserError(
                f"The split '{other}' has boxes of classes that the split '{name}' does not list: "
                f"{shorten([f'{each!r}{suggest(each, wanted)}' for each in strange])}.",
                where=where,
                expected=f"classes among those of '{name}': {shorten(wanted, 20)}",
                fix=f"list them for '{name}' too (a class needs no boxes there), or leave these boxes out",
            )
        notes = []
        if unknown:
            found = f"with {sum(unknown.values()):,} boxes, to be detected by name alone"
            how = found if unseen else "without boxes"
            notes = [f"lists classes that '{name}' does not, {how}: {shorten(list(unknown))}"]
        missing = [each for each in wanted if each not in index.classes]
        notes += [f"does not list the classes {shorten(missing)}"] if missing else []
        if not notes and index.classes != wanted:
            notes = [f"lists its classes in a different order from '{name}'"]
        if notes:
            warnings.warn(f"The split '{other}' {', and '.join(notes)}. Classes are matched by name.", stacklevel=2)
        result[other] = index.with_classes(every if unseen and other != name else wanted)
    return result


def concatenate(splits: Sequence[DatasetIndex], split: str) -> DatasetIndex:
    """Return one index of the images of all `splits` (same classes and root), called `split`.

    Image ids are kept while no two images share one, else all are numbered anew from 1.
    """
    first = splits[0]
    assert all(index.classes == first.classes and index.root == first.root for index in splits)
    source_ids = [each for index in splits for each in index.source_ids()]
    if len(set(source_ids)) < len(source_ids):
        source_ids = list(range(1, len(source_ids) + 1))
    ids, id_texts = id_columns(source_ids)
    names = [index.files.name(i) for index in splits for i in range(len(index))]
    return dataclasses.replace(
        first,
        split=split,
        files=FileTable.build(first.root, names),
        sizes=np.concatenate([index.sizes for index in splits]),
        image_ids=ids,
        id_texts=id_texts,
        offsets=offsets_of(np.concatenate([np.diff(index.offsets) for index in splits])),
        boxes=np.concatenate([index.boxes for index in splits]),
        labels=np.concatenate([index.labels for index in splits]),
        crowd=np.concatenate([index.crowd for index in splits]),
        areas=np.concatenate([index.areas for index in splits]),
    )
