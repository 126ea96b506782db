"""Several indexes as one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from eyas.data.file_table import FileTable, offsets_of
from eyas.data.index import DatasetIndex, id_columns


def concatenate(splits: Sequence[DatasetIndex], split: str) -> DatasetIndex:
    """Return one index of the pictures of all `splits` (same classes and root), called `split`.

    Image ids are kept while no two pictures share one, else all are numbered anew from 1.
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
