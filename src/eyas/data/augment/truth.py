"""The boxes of planned samples: moved with their images, clipped to what is seen, dropped where too little is left.

Worked out for any number of samples at once: one by one where each is drawn at once, a batch where a GPU draws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from eyas.data.augment.affine import in_sight, turned_boxes
from eyas.data.augment.config import AugmentPolicy
from eyas.data.augment.plan import Image, Piece, Plan
from eyas.data.augment.within import fit_of
from eyas.types import FloatArray, InputSpec, IntArray


class BatchTruth(NamedTuple):
    """Boxes packed end to end.

    Attributes:
        boxes: float32 [m, 4], xyxy.
        labels: int64 [m].
        counts: int64 [n], how many boxes each image (or each sample) has.
    """

    boxes: FloatArray
    labels: IntArray
    counts: IntArray


def truth_of(plans: Sequence[Plan[Image]], known: BatchTruth, spec: InputSpec, policy: AugmentPolicy) -> BatchTruth:
    """Return the boxes of samples, in pixels of the network's frame.

    Args:
        plans: the samples.
        known: the boxes of the images of all pieces, plan after plan, in their pixels.
        spec: the network's input.
        policy: by which they were planned; it says which boxes are dropped.
    """
    pieces = [piece for plan in plans for piece in plan.all_pieces()]
    owners = np.repeat(np.arange(len(pieces)), known.counts)
    samples = np.repeat(np.arange(len(plans)), [len(plan.all_pieces()) for plan in plans])[owners]
    boxes = moved(pieces, known.boxes, owners)
    if policy.within == "image":
        boxes, rows = _within(plans, known.boxes, boxes, owners, (spec.height, spec.width), policy)
    else:
        frames = np.array([piece.rectangle for piece in pieces], np.float32).reshape(-1, 4)[owners]
        boxes, rows = in_sight(
            boxes, np.arange(len(boxes)), frames,
            min_size=policy.min_size, min_area=policy.min_area, min_visible=policy.min_visible,
        )  # fmt: skip
    boxes = _flipped(plans, boxes, owners[rows], policy)
    counts = np.bincount(samples[rows], minlength=len(plans)).astype(np.int64)
    return BatchTruth(boxes, known.labels[rows], counts)


def moved(pieces: Sequence[Piece[Image]], boxes: FloatArray, owners: IntArray) -> FloatArray:
    """Return boxes as they lie on the canvas, float32 [m, 4], not clipped.

    Args:
        pieces: the images in their rectangles.
        boxes: float32 [m, 4], in pixels of the images.
        owners: int64 [m], the piece that each box belongs to.
    """
    numbers = np.array([(*one.cut.scale, *one.cut.shift, *one.rectangle[:2]) for one in pieces], np.float32)
    numbers = numbers.reshape(-1, 6)[owners]
    boxes = _mirrored(boxes, np.array([one.source.width if one.mirrored else 0 for one in pieces], np.float32)[owners])
    placed = boxes * numbers[:, [0, 1, 0, 1]] + numbers[:, [2, 3, 2, 3]]
    turned = np.array([one.cut.matrix is not None for one in pieces])
    if turned.any():
        matrices = np.stack([np.eye(3) if one.cut.matrix is None else one.cut.matrix for one in pieces])
        rows = turned[owners]
        placed[rows] = turned_boxes(boxes[rows], matrices[owners[rows]])
    return np.asarray(placed + numbers[:, [4, 5, 4, 5]])


def _mirrored(boxes: FloatArray, widths: FloatArray) -> FloatArray:
    """Return the boxes, [m, 4], left and right changed in images of the given widths, float32 [m], where not 0."""
    if not widths.any():
        return boxes
    mirrored = boxes.copy()
    mirrored[:, 0], mirrored[:, 2] = widths - boxes[:, 2], widths - boxes[:, 0]
    return np.where((widths > 0)[:, None], mirrored, boxes)


def _within(
    plans: Sequence[Plan[Image]],
    before: FloatArray,
    boxes: FloatArray,
    owners: IntArray,
    size: tuple[int, int],
    policy: AugmentPolicy,
) -> tuple[FloatArray, IntArray]:
    """Return the boxes clipped to their samples' areas, and the rows of those that are kept.

    Sizes count in the pixels of the image file; of a partner, all boxes with area stay.
    """
    numbers = []
    for plan in plans:
        for piece in plan.all_pieces():
            whole = max(piece.source.size) / max(piece.source.height, piece.source.width)  # pixels of the file a pixel
            numbers.append((plan.area[1], plan.area[0], whole, whole / fit_of(piece.source, size)))
    table = np.array(numbers, np.float32).reshape(-1, 4)[owners]
    clipped = np.clip(boxes, 0, table[:, [0, 1, 0, 1]])
    partner = np.array([piece is not plan.pieces[0] for plan in plans for piece in plan.all_pieces()])[owners]
    solid = ((clipped[:, 2:] - clipped[:, :2]) > 0).all(axis=1)
    large = _large_enough(before * table[:, 2:3], clipped * table[:, 3:4], policy)
    rows = np.flatnonzero(np.where(partner, solid, large))
    return np.asarray(clipped[rows], np.float32), rows.astype(np.int64)


def _large_enough(before: FloatArray, after: FloatArray, policy: AugmentPolicy) -> npt.NDArray[np.bool_]:
    """Return which boxes are kept, by their sizes before and after, both in the image's pixels."""
    sides, first = after[:, 2:] - after[:, :2], before[:, 2:] - before[:, :2]
    area = sides.prod(axis=1)
    kept = (sides > policy.min_size).all(axis=1) & (area >= policy.min_area)
    kept &= area > policy.min_ratio * first.prod(axis=1)
    if policy.max_aspect:
        kept &= sides.max(axis=1) < policy.max_aspect * sides.min(axis=1)
    return np.asarray(kept)


def _flipped(plans: Sequence[Plan[Image]], boxes: FloatArray, owners: IntArray, policy: AugmentPolicy) -> FloatArray:
    """Return the boxes, [m, 4], flipped where their samples are; within the image, a partner comes after the flip."""
    widths = []
    for plan in plans:
        width = plan.area[1] if plan.flip else 0
        partner = 0 if policy.within == "image" else width
        widths += [width] * len(plan.pieces) + [partner] * (plan.mix is not None)
    return _mirrored(boxes, np.array(widths, np.float32)[owners])
