"""Checks of boxes: empty, outside the frame, twice the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eyas.boxes import area
from eyas.data.checks.findings import Finding, finding
from eyas.data.index import BoolArray, DatasetIndex, SizeArray
from eyas.types import FloatArray, IntArray

_SLACK = 1.0  # pixels that a box may stick out or differ by: rounding of a labelling tool


def check_boxes(index: DatasetIndex, sizes: SizeArray) -> list[Finding]:
    """Return what is wrong with the boxes of a split.

    Args:
        index: the split.
        sizes: int32 [N, 2], the images' true sizes, zeros where unknown.
    """
    split = index.split
    shape = index.boxes[:, 2:] - index.boxes[:, :2]
    empty: BoolArray = np.asarray((shape <= 0).any(axis=1))
    frame = sizes[index.image_of_row()].astype(np.float32)
    known = (frame > 0).all(axis=1)
    beyond = np.maximum(-index.boxes[:, :2], index.boxes[:, 2:] - frame[:, ::-1]).max(axis=1, initial=0)
    sticks_out = known & ~empty & (beyond > _SLACK)
    inside = area(_clipped(index.boxes, frame))
    lost: BoolArray = sticks_out & (inside < 0.5 * area(index.boxes))
    return [
        *finding("error", "empty box", split, "It has no area and can't be learned.", _tell(index, empty)),
        *finding(
            "error", "box outside", split, "More than half of it is outside the image.", _tell(index, lost)
        ),
        *finding(
            "warning", "box sticks out", split, "Part of it is outside the image; training clips it.",
            _tell(index, sticks_out & ~lost),
        ),
        *_check_twins(index, ~empty),
    ]  # fmt: skip


def _clipped(boxes: FloatArray, frame: FloatArray) -> FloatArray:
    limit = frame[:, [1, 0, 1, 0]]
    return np.asarray(np.clip(boxes, 0, limit))


def _check_twins(index: DatasetIndex, usable: BoolArray) -> list[Finding]:
    """Return boxes of one image that coincide: of one class, and of two."""
    same: list[tuple[int, int]] = []
    other: list[tuple[int, int]] = []
    for first, second in _twins(index, usable):
        (same if index.labels[first] == index.labels[second] else other).append((first, second))
    split = index.split
    names = index.classes
    return [
        *finding(
            "warning", "duplicate box", split, "The same object is labelled twice; one box can't be matched.",
            _tell_rows(index, [second for _, second in same]),
        ),
        *finding(
            "warning", "same box, two classes", split, "Two classes have the same box; usually only one is right.",
            [
                f"{text}, also '{names[index.labels[first]]}'"
                for (first, _), text in zip(other, _tell_rows(index, [second for _, second in other]), strict=True)
            ],
        ),
    ]  # fmt: skip


def _twins(index: DatasetIndex, usable: BoolArray) -> list[tuple[int, int]]:
    """Return pairs of rows of one image whose four sides differ by at most a pixel, found by sorting."""
    rows = np.flatnonzero(usable & ~index.crowd)
    owner = index.image_of_row()[rows]
    order = np.lexsort((index.boxes[rows, 0], owner))
    rows, owner = rows[order], owner[order]
    boxes = index.boxes[rows]
    pairs: list[tuple[int, int]] = []
    for step in range(1, len(rows)):
        near = (owner[step:] == owner[:-step]) & (boxes[step:, 0] - boxes[:-step, 0] <= _SLACK)
        if not near.any():
            break  # sorted by left side within an image: farther neighbours are farther away
        close = near & (np.abs(boxes[step:] - boxes[:-step]).max(axis=1) <= _SLACK)
        found = np.flatnonzero(close)
        pairs += [
            (min(a, b), max(a, b)) for a, b in zip(rows[found].tolist(), rows[found + step].tolist(), strict=True)
        ]
    return sorted(pairs)


def _tell(index: DatasetIndex, mask: BoolArray) -> list[str]:
    return _tell_rows(index, np.flatnonzero(mask).tolist())


def _tell_rows(index: DatasetIndex, rows: Sequence[int]) -> list[str]:
    """Return a line for each row: image, class, corners."""
    owner: IntArray = np.searchsorted(index.offsets, np.asarray(rows, np.int64), side="right") - 1
    return [
        f"{index.files.name(int(image))}: '{index.classes[index.labels[row]]}' at "
        + ", ".join(f"{value:g}" for value in np.round(index.boxes[row].astype(float), 1))
        for image, row in zip(owner, rows, strict=True)
    ]
