"""Which boxes of a split training and evaluation really see, and why the others are left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from eyas.data.augment.config import AugmentPolicy
from eyas.data.index import BoolArray, DatasetIndex, SizeArray
from eyas.types import FloatArray

CROWD = "crowd or difficult"
NOT_FINITE = "not finite"
NO_AREA = "without area inside the image"
TOO_SMALL = "too small"


@dataclass(frozen=True)
class Usable:
    """The boxes of a split that are used.

    Attributes:
        kept: bool [M], whether each box is.
        left_out: reason -> number of boxes; a box counts for the first reason that applies.
    """

    kept: BoolArray
    left_out: Mapping[str, int]

    def told(self) -> str:
        """Return "12 crowd or difficult, 3 not finite", "" if nothing was left out."""
        return ", ".join(f"{count:,} {reason}" for reason, count in self.left_out.items())


def measured_boxes(index: DatasetIndex, sizes: SizeArray | None = None) -> Usable:
    """Return the boxes that evaluation looks for: no crowds, and none that can't be found because it has no area.

    Args:
        index: the split.
        sizes: int32 [N, 2], the images' sizes, if better known than the index's.
    """
    return _sort_out(_plain_faults(index, _inside(index, index.sizes if sizes is None else sizes)))


def trained_boxes(
    index: DatasetIndex,
    size: tuple[int, int],
    policy: AugmentPolicy,
    *,
    margin: int = 0,
    sizes: SizeArray | None = None,
) -> Usable:
    """Return the boxes that training can see: those of `measured_boxes` that are large enough when seen largest.

    Args:
        index: the split.
        size: (height, width) of the network's input in pixels.
        policy: says how small a box may get, and how much larger than fitting an image may be shown.
        margin: pixels left free on the limiting side where images are not moved.
        sizes: int32 [N, 2], the images' sizes, if better known than the index's.
    """
    known = index.sizes if sizes is None else sizes
    inside = _inside(index, known)
    free = 0 if policy.moves else margin
    fit = ((np.array(size) - free) / np.maximum(known, 1)).min(axis=1) * (policy.scale[1] if policy.moves else 1.0)
    # Of an image whose size is not known nothing can be said: its boxes are taken to be large enough.
    largest = np.where((known > 0).all(axis=1), fit, np.inf)[index.image_of_row()]
    sides = np.maximum(inside[:, 2:] - inside[:, :2], 1e-9) * largest[:, None]
    # A hair of tolerance: the true sizes are worked out in float32.
    small = (sides < policy.min_size - 1e-3).any(axis=1) | (sides.prod(axis=1) < policy.min_area - 1e-2)
    reason = (
        f"{TOO_SMALL} (side below {policy.min_size:g} pixels or area below {policy.min_area:g} square pixels at "
        f"{max(size)})"
    )
    return _sort_out({**_plain_faults(index, inside), reason: small})


def _inside(index: DatasetIndex, sizes: SizeArray) -> FloatArray:
    limit = sizes[index.image_of_row()][:, [1, 0, 1, 0]].astype(np.float32)
    limit[(limit <= 0).any(axis=1)] = np.inf
    return np.asarray(np.clip(index.boxes, 0, limit))


def _plain_faults(index: DatasetIndex, inside: FloatArray) -> dict[str, BoolArray]:
    return {
        CROWD: index.crowd,
        NOT_FINITE: np.asarray(~np.isfinite(index.boxes).all(axis=1)),
        NO_AREA: np.asarray(~(inside[:, 2:] > inside[:, :2]).all(axis=1)),
    }


def _sort_out(faults: Mapping[str, BoolArray]) -> Usable:
    """Return what no fault applies to, each other box counted once."""
    kept = ~np.zeros_like(next(iter(faults.values())))
    left_out = {}
    for reason, mask in faults.items():
        count = int((mask & kept).sum())
        kept &= ~mask
        if count:
            left_out[reason] = count
    return Usable(kept, left_out)
