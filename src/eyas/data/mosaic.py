"""Four pictures on one canvas, each resampled once, straight into its quadrant.

The classic mosaic (YOLOv4, arXiv 2004.10934) pastes four pictures onto a canvas of twice the size and warps that to
the network's size: every pixel is handled twice, and much of what is drawn is cropped away. Here the quadrants are cut
on the final canvas and each picture gets its own size and place in its quadrant.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eyas.data.affine import Move, in_sight, paste
from eyas.data.pictures import Source
from eyas.data.policy import AugmentPolicy
from eyas.types import FloatArray, IntArray, UInt8Array

_MIDDLE = (0.25, 0.75)  # the quadrants meet at this part of the canvas's width and height: none becomes a sliver


def mosaic(
    sources: Sequence[Source], canvas: UInt8Array, policy: AugmentPolicy, pad_value: int, rng: np.random.Generator
) -> tuple[FloatArray, IntArray]:
    """Draw four pictures into the quadrants of a canvas.

    Args:
        sources: four pictures; which one goes where is drawn.
        canvas: uint8 [H, W, 3], written to.
        policy: ranges of size, rotation and slant, and what makes a box too small.
        pad_value: grey level where no picture is.
        rng: the sample's own random numbers.

    Returns:
        boxes float32 [m, 4] (xyxy pixels of the canvas, clipped to their quadrant) and labels int64 [m].
    """
    height, width = canvas.shape[:2]
    canvas[...] = pad_value
    x, y = round(width * rng.uniform(*_MIDDLE)), round(height * rng.uniform(*_MIDDLE))
    quadrants = ((0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height))
    boxes, labels = [], []
    for quadrant, number in zip(quadrants, rng.permutation(4), strict=True):
        found = into(sources[number], quadrant, canvas, policy, pad_value, rng)
        boxes.append(found[0])
        labels.append(found[1])
    return np.concatenate(boxes), np.concatenate(labels)


def into(
    source: Source,
    rectangle: tuple[int, int, int, int],
    canvas: UInt8Array,
    policy: AugmentPolicy,
    pad_value: int,
    rng: np.random.Generator,
) -> tuple[FloatArray, IntArray]:
    """Draw a picture at a random size into a rectangle (x0, y0, x1, y1) of the canvas, moved as far as it has room."""
    left, top, right, bottom = rectangle
    part = canvas[top:bottom, left:right]
    height, width = source.image.shape[:2]
    # The same size range as for a picture alone: a factor on what fits the whole canvas.
    scale = min(canvas.shape[0] / height, canvas.shape[1] / width) * rng.uniform(*policy.scale)
    room_x, room_y = right - left - width * scale, bottom - top - height * scale
    move = Move(scale, room_x * rng.random(), room_y * rng.random(), *turn(policy, rng))
    boxes, labels = kept(paste(source, move, part, pad_value), source.labels, part, policy)
    return boxes + np.array([left, top, left, top], np.float32), labels


def alone(
    source: Source, canvas: UInt8Array, policy: AugmentPolicy, pad_value: int, rng: np.random.Generator
) -> tuple[FloatArray, IntArray]:
    """Draw one picture at a random size near the middle of the canvas; returns as `mosaic` does."""
    canvas[...] = pad_value
    height, width = source.image.shape[:2]
    scale = min(canvas.shape[0] / height, canvas.shape[1] / width) * rng.uniform(*policy.scale)
    shift = policy.translate * rng.uniform(-1, 1, 2)
    left = (canvas.shape[1] - width * scale) / 2 + float(shift[0]) * canvas.shape[1]
    top = (canvas.shape[0] - height * scale) / 2 + float(shift[1]) * canvas.shape[0]
    move = Move(scale, left, top, *turn(policy, rng))
    return kept(paste(source, move, canvas, pad_value), source.labels, canvas, policy)


def turn(policy: AugmentPolicy, rng: np.random.Generator) -> tuple[float, float]:
    """Return a random rotation and slant in degrees."""
    if not (policy.degrees or policy.shear):
        return 0.0, 0.0
    return policy.degrees * rng.uniform(-1, 1), policy.shear * rng.uniform(-1, 1)


def kept(boxes: FloatArray, labels: IntArray, part: UInt8Array, policy: AugmentPolicy) -> tuple[FloatArray, IntArray]:
    """Return the boxes clipped to the part of the canvas, without those of which the policy says too little is left."""
    return in_sight(
        boxes,
        labels,
        part.shape[0],
        part.shape[1],
        min_size=policy.min_size,
        min_area=policy.min_area,
        min_visible=policy.min_visible,
    )
