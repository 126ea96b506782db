"""What a run notes of its dataset: a hash for the card, and a row an image, to tell later what was changed.

The images' bytes are not read: hashing a large dataset at each run would take longer than a short run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from eyas.artifacts.dataset import Row
from eyas.data.index import DatasetIndex


def hash_index(index: DatasetIndex) -> str:
    """Return a SHA-256 of a split: names and sizes of the files, classes, boxes, labels."""
    digest = hashlib.sha256("\0".join(index.classes).encode())
    digest.update(index.files.text.tobytes())
    for path in index.files:
        digest.update(_size(path).to_bytes(8, "little", signed=True))
    for column in (index.offsets, index.boxes, index.labels, index.crowd):
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


def rows_of(splits: Mapping[str, DatasetIndex]) -> Iterator[Row]:
    """Yield a row for each image of the splits, in their order."""
    for split, index in splits.items():
        for number in range(len(index)):
            digest = hashlib.blake2b(digest_size=8)
            for column in index.truth(number):
                digest.update(np.ascontiguousarray(column).tobytes())
            yield split, index.files.name(number), str(_size(index.path(number))), digest.hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1
