"""Four images on one canvas, each resampled once, straight into its quadrant.

The classic mosaic (YOLOv4, arXiv 2004.10934) pastes four images onto a canvas of twice the size and warps that to
the network's size: every pixel is handled twice, and much of what is drawn is cropped away. Here the quadrants are cut
on the final canvas and each image gets its own size and place in its quadrant.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eyas.data.augment.affine import Move, Rectangle, cut
from eyas.data.augment.config import AugmentPolicy
from eyas.data.augment.plan import Image, Piece

_MIDDLE = (0.25, 0.75)  # the quadrants meet at this part of the canvas's width and height: none becomes a sliver


def mosaic(
    sources: Sequence[Image], size: tuple[int, int], policy: AugmentPolicy, rng: np.random.Generator
) -> tuple[Piece[Image], ...]:
    """Draw where four images go: into the quadrants of a canvas, upper left, upper right, lower left, lower right.

    Args:
        sources: four images; which one goes where is drawn.
        size: (height, width) of the canvas.
        policy: ranges of size, rotation and slant.
        rng: the sample's own random numbers.
    """
    height, width = size
    middle = rng.uniform(*_MIDDLE, 2).tolist()
    x, y = round(width * middle[0]), round(height * middle[1])
    quadrants = ((0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height))
    chosen = [sources[number] for number in rng.permutation(4).tolist()]
    return tuple(_into(one, place, size, policy, rng) for one, place in zip(chosen, quadrants, strict=True))


def _into(
    source: Image,
    rectangle: Rectangle,
    size: tuple[int, int],
    policy: AugmentPolicy,
    rng: np.random.Generator,
) -> Piece[Image]:
    """Draw a size for an image in a rectangle of the canvas, and move it as far as it has room."""
    left, top, right, bottom = rectangle
    draws = rng.random(3).tolist()
    # The same size range as for an image alone: a factor on what fits the whole canvas.
    scale = _scale(source, size, policy, draws[0])
    room_x, room_y = right - left - source.width * scale, bottom - top - source.height * scale
    move = Move(scale, room_x * draws[1], room_y * draws[2], *turn(policy, rng))
    return Piece(source, rectangle, cut(source.height, source.width, move, (bottom - top, right - left)))


def alone(source: Image, size: tuple[int, int], policy: AugmentPolicy, rng: np.random.Generator) -> Piece[Image]:
    """Draw where one image goes: near the middle of a canvas of `size` = (height, width)."""
    height, width = size
    draws = rng.random(3).tolist()
    scale = _scale(source, size, policy, draws[0])
    left = (width - source.width * scale) / 2 + policy.translate * (2 * draws[1] - 1) * width
    top = (height - source.height * scale) / 2 + policy.translate * (2 * draws[2] - 1) * height
    move = Move(scale, left, top, *turn(policy, rng))
    return Piece(source, (0, 0, width, height), cut(source.height, source.width, move, size))


def _scale(source: Image, size: tuple[int, int], policy: AugmentPolicy, draw: float) -> float:
    """Return canvas pixels an image pixel: what fits the image into the canvas, times a factor of the policy."""
    low, high = policy.scale
    return min(size[0] / source.height, size[1] / source.width) * (low + (high - low) * draw)


def turn(policy: AugmentPolicy, rng: np.random.Generator) -> tuple[float, float]:
    """Return a random rotation and slant in degrees."""
    if not (policy.degrees or policy.shear):
        return 0.0, 0.0
    return policy.degrees * rng.uniform(-1, 1), policy.shear * rng.uniform(-1, 1)
