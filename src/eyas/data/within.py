"""A picture moved within its own rectangle, in the upper left corner of the frame, as SuperGradients augments.

There, a picture is moved, coloured, flipped and mixed at its own size, and then fitted into the frame with padding at
the right and at the bottom. Here the same comes from one resampling: its rectangle in the frame stands for the picture.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from eyas.data import colour
from eyas.data.affine import Move, paste
from eyas.data.flip import flip
from eyas.data.mixup import Truth
from eyas.data.mosaic import turn
from eyas.data.pictures import Source
from eyas.data.policy import AugmentPolicy
from eyas.types import FloatArray, UInt8Array


def within_picture(
    source: Source,
    partner: Callable[[], Source],
    canvas: UInt8Array,
    policy: AugmentPolicy,
    pad_value: int,
    rng: np.random.Generator,
) -> Truth:
    """Draw a picture, and perhaps a partner shining through it, into the canvas.

    Args:
        source: the picture.
        partner: gives another picture.
        canvas: uint8 [H, W, 3], the frame; written to.
        policy: chances and ranges.
        pad_value: grey level where no picture is.
        rng: the sample's own random numbers.

    Returns:
        boxes float32 [m, 4] (xyxy pixels of the canvas) and labels int64 [m].
    """
    canvas[...] = pad_value
    height, width = source.image.shape[:2]
    fit = min(canvas.shape[0] / height, canvas.shape[1] / width)
    area = canvas[: max(1, int(height * fit)), : max(1, int(width * fit))]
    draws = rng.random(3)
    low, high = policy.scale
    scale = fit * (low + (high - low) * float(draws[0]))
    left = (area.shape[1] - width * scale) / 2 + policy.translate * (2 * draws[1] - 1) * area.shape[1]
    top = (area.shape[0] - height * scale) / 2 + policy.translate * (2 * draws[2] - 1) * area.shape[0]
    boxes = _clipped(paste(source, Move(scale, left, top, *turn(policy, rng)), area, pad_value), area)
    whole = max(source.size) / max(height, width)  # pixels of the file a decoded one
    kept = _large_enough(source.boxes * whole, boxes * (whole / fit), policy)
    truth = boxes[kept], source.labels[kept]
    if policy.colours:
        colour.jitter(area, policy, rng)
    if rng.random() < policy.flip:
        truth = flip(area, truth[0]), truth[1]
    if rng.random() < policy.mixup:
        truth = _mixed(area, truth, partner(), policy, pad_value, rng)
    return truth


def _mixed(
    area: UInt8Array, truth: Truth, partner: Source, policy: AugmentPolicy, pad_value: int, rng: np.random.Generator
) -> Truth:
    """Let a partner shine through by half: fitted in, then made smaller (black beside it) or larger (a part of it)."""
    if rng.random() < policy.flip:
        partner = _flipped(partner)
    height, width = area.shape[:2]
    factor = float(rng.uniform(*policy.scale))
    scale = factor * min(height / partner.image.shape[0], width / partner.image.shape[1])
    inner = int(height * factor), int(width * factor)
    top = int(rng.integers(0, inner[0] - height)) if inner[0] > height else 0
    left = int(rng.integers(0, inner[1] - width)) if inner[1] > width else 0
    other = np.zeros_like(area)
    other[: inner[0], : inner[1]] = pad_value
    boxes = _clipped(paste(partner, Move(scale, -left, -top), other, pad_value), other)
    solid = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(axis=1)
    cv2.addWeighted(area, 0.5, other, 0.5, 0, dst=area)
    return np.concatenate([truth[0], boxes[solid]]), np.concatenate([truth[1], partner.labels[solid]])


def _flipped(source: Source) -> Source:
    """Return a picture with left and right changed."""
    image = np.ascontiguousarray(source.image[:, ::-1])
    boxes = source.boxes.copy()
    boxes[:, [0, 2]] = image.shape[1] - source.boxes[:, [2, 0]]
    return Source(image, boxes, source.labels, source.size)


def _clipped(boxes: FloatArray, area: UInt8Array) -> FloatArray:
    """Return the boxes, clipped to the picture that they are of."""
    height, width = area.shape[:2]
    return np.asarray(np.clip(boxes, 0, np.array([width, height, width, height], np.float32)), np.float32)


def _large_enough(before: FloatArray, after: FloatArray, policy: AugmentPolicy) -> npt.NDArray[np.bool_]:
    """Return which boxes are kept, by their sizes before and after, both in the picture's pixels."""
    sides, first = after[:, 2:] - after[:, :2], before[:, 2:] - before[:, :2]
    area = sides.prod(axis=1)
    kept = (sides > policy.min_size).all(axis=1) & (area >= policy.min_area)
    kept &= area > policy.min_ratio * first.prod(axis=1)
    if policy.max_aspect:
        kept &= sides.max(axis=1) < policy.max_aspect * sides.min(axis=1)
    return np.asarray(kept)
