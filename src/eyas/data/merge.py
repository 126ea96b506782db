"""Several indexes as one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from eyas.data.file_table import FileTable, offsets_of
from eyas.data.index import DatasetIndex


def concatenate(splits: Sequence[DatasetIndex], split: str) -> DatasetIndex:
    """Return one index of the pictures of all `splits` (same classes and root), called `split`.

    Image ids are kept while no two pictures share one, else all are numbered anew from 1.
    """
    first = splits[0]
    assert all(index.classes == first.classes and index.root == first.root for index in splits)
    ids = np.concatenate([index.image_ids for index in splits])
    if len(np.unique(ids)) < len(ids):
        ids = np.arange(1, len(ids) + 1)
    names = [index.files.name(i) for index in splits for i in range(len(index))]
    return dataclasses.replace(
        first,
        split=split,
        files=FileTable.build(first.root, names),
        sizes=np.concatenate([index.sizes for index in splits]),
        image_ids=ids,
        offsets=offsets_of(np.concatenate([np.diff(index.offsets) for index in splits])),
        boxes=np.concatenate([index.boxes for index in splits]),
        labels=np.concatenate([index.labels for index in splits]),
        crowd=np.concatenate([index.crowd for index in splits]),
        areas=np.concatenate([index.areas for index in splits]),
    )
