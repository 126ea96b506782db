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
    middle = rng.uniform(*_MIDDLE, 2)
    x, y = round(width * middle[0]), round(height * middle[1])
    quadrants = ((0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height))
    chosen = [sources[number] for number in rng.permutation(4)]
    boxes = [into(one, place, canvas, policy, pad_value, rng) for one, place in zip(chosen, quadrants, strict=True)]
    frames = np.repeat(np.array(quadrants, np.float32), [len(one) for one in boxes], axis=0)
    return kept(np.concatenate(boxes), np.concatenate([one.labels for one in chosen]), frames, policy)


def into(
    source: Source,
    rectangle: tuple[int, int, int, int],
    canvas: UInt8Array,
    policy: AugmentPolicy,
    pad_value: int,
    rng: np.random.Generator,
) -> FloatArray:
    """Draw a picture at a random size into a rectangle (x0, y0, x1, y1) of the canvas, moved as far as it has room.

    Returns its boxes, float32 [m, 4], in pixels of the canvas, not clipped.
    """
    left, top, right, bottom = rectangle
    height, width = source.image.shape[:2]
    draws = rng.random(3)
    # The same size range as for a picture alone: a factor on what fits the whole canvas.
    scale = _scale(source, canvas, policy, draws[0])
    room_x, room_y = right - left - width * scale, bottom - top - height * scale
    move = Move(scale, room_x * draws[1], room_y * draws[2], *turn(policy, rng))
    boxes = paste(source, move, canvas[top:bottom, left:right], pad_value)
    return boxes + np.array([left, top, left, top], np.float32)


def alone(
    source: Source, canvas: UInt8Array, policy: AugmentPolicy, pad_value: int, rng: np.random.Generator
) -> tuple[FloatArray, IntArray]:
    """Draw one picture at a random size near the middle of the canvas; returns as `mosaic` does."""
    canvas[...] = pad_value
    height, width = source.image.shape[:2]
    draws = rng.random(3)
    scale = _scale(source, canvas, policy, draws[0])
    left = (canvas.shape[1] - width * scale) / 2 + policy.translate * (2 * draws[1] - 1) * canvas.shape[1]
    top = (canvas.shape[0] - height * scale) / 2 + policy.translate * (2 * draws[2] - 1) * canvas.shape[0]
    move = Move(scale, left, top, *turn(policy, rng))
    return kept(paste(source, move, canvas, pad_value), source.labels, frame(canvas), policy)


def frame(canvas: UInt8Array) -> FloatArray:
    """Return the whole canvas as a rectangle, float32 [1, 4]."""
    return np.array([[0, 0, canvas.shape[1], canvas.shape[0]]], np.float32)


def kept(boxes: FloatArray, labels: IntArray, frames: FloatArray, policy: AugmentPolicy) -> tuple[FloatArray, IntArray]:
    """Return the boxes clipped to their frames, without those of which the policy says too little is left."""
    return in_sight(
        boxes,
        labels,
        frames,
        min_size=policy.min_size,
        min_area=policy.min_area,
        min_visible=policy.min_visible,
    )


def _scale(source: Source, canvas: UInt8Array, policy: AugmentPolicy, draw: float) -> float:
    """Return canvas pixels a picture pixel: what fits the picture into the canvas, times a factor of the policy."""
    low, high = policy.scale
    height, width = source.image.shape[:2]
    return float(min(canvas.shape[0] / height, canvas.shape[1] / width) * (low + (high - low) * draw))


def turn(policy: AugmentPolicy, rng: np.random.Generator) -> tuple[float, float]:
    """Return a random rotation and slant in degrees."""
    if not (policy.degrees or policy.shear):
        return 0.0, 0.0
    return policy.degrees * rng.uniform(-1, 1), policy.shear * rng.uniform(-1, 1)
