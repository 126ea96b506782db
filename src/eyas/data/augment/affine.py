"""One image put into one rectangle of a canvas: size, place, rotation and slant in a single resampling.

What is to be done (`Cut`) is worked out from numbers alone; the pixels are drawn from it here by OpenCV, and for whole
batches on a GPU by `eyas.data.device.render`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from eyas.data.loading.source import Source
from eyas.letterbox import Placement
from eyas.types import FloatArray, IntArray, UInt8Array

Rectangle = tuple[int, int, int, int]  # x0, y0, x1, y1 in whole pixels
FITTED = -1  # the level of an image that is resized as letterboxing does it


@dataclass(frozen=True)
class Move:
    """Where an image goes: pixel x of the image comes to x * scale + left of the rectangle, before it is turned.

    Attributes:
        scale: rectangle pixels an image pixel.
        left, top: where the image's corner comes to, in pixels of the rectangle (may lie outside).
        degrees: rotation about the image's middle, clockwise as seen.
        shear: slant about the image's middle, in degrees.
    """

    scale: float
    left: float
    top: float
    degrees: float = 0.0
    shear: float = 0.0


class Cut(NamedTuple):
    """Which pixels of an image fill which pixels of a rectangle, and how its boxes follow.

    Attributes:
        level: how often the image is halved first (`Source.level`), or FITTED.
        window: the part of the level that is resized; of a turned image the whole level.
        target: what it covers, in pixels of the rectangle; of a turned image the whole rectangle. Nothing of an
            image that is out of sight.
        scale: x and y scale of boxes, rectangle pixels an image pixel.
        shift: x and y of the image's corner in the rectangle, as boxes have it.
        matrix: float64 [3, 3], from image coordinates to the rectangle's, if it is turned or slanted; None else.
    """

    level: int
    window: Rectangle
    target: Rectangle
    scale: tuple[float, float]
    shift: tuple[float, float]
    matrix: npt.NDArray[np.float64] | None = None


def cut(height: int, width: int, move: Move, room: tuple[int, int]) -> Cut:
    """Return how an image of `height` x `width` fills a rectangle of `room` = (height, width) pixels.

    An image that is not turned is resized, which is four times faster than a warp: the part that is in sight goes
    straight into its place. The part has whole pixels on both sides, so its scale is off by less than a pixel over the
    part; the boxes follow the scale that is really used.
    """
    level = level_of(height, width, move.scale)
    size = height >> level, width >> level
    if move.degrees or move.shear:
        matrix = _matrix(height, width, move)
        return Cut(level, (0, 0, size[1], size[0]), (0, 0, room[1], room[0]), (1.0, 1.0), (0.0, 0.0), matrix)
    across = _axis(size[1], move.scale * 2**level, move.left, room[1])
    down = _axis(size[0], move.scale * 2**level, move.top, room[0])
    if across is None or down is None:
        # Out of sight: the boxes are moved as asked, and the caller drops them.
        return Cut(level, (0, 0, 1, 1), (0, 0, 0, 0), (move.scale, move.scale), (move.left, move.top))
    (a, b, x0, x1), (c, d, y0, y1) = across, down
    scale_x, scale_y = (x1 - x0) / (b - a), (y1 - y0) / (d - c)
    step = 0.5**level  # level pixels an image pixel
    shift = x0 - a * scale_x, y0 - c * scale_y
    return Cut(level, (a, c, b, d), (x0, y0, x1, y1), (scale_x * step, scale_y * step), shift)


def fitted(placed: Placement) -> Cut:
    """Return the cut of an image that is letterboxed."""
    target = placed.left, placed.top, placed.left + placed.width, placed.top + placed.height
    window = 0, 0, placed.width, placed.height
    return Cut(FITTED, window, target, (placed.scale_x, placed.scale_y), (placed.left, placed.top))


def level_of(height: int, width: int, scale: float) -> int:
    """Return how often an image is to be halved first so that the rest of the way down is by less than two."""
    if scale >= 0.5:
        return 0
    return min(math.ceil(-math.log2(scale)) - 1, top_level(height, width))


def top_level(height: int, width: int) -> int:
    """Return how often an image can be halved until one side is a single pixel."""
    return min(height, width).bit_length() - 1


def _axis(size: int, scale: float, start: float, room: int) -> tuple[int, int, int, int] | None:
    """Return (first, end) pixels of the image in sight and where they go, (first, end) in the rectangle.

    None if nothing is in sight.
    """
    low = max(0, round(start))
    high = min(room, round(start + size * scale))
    if high <= low:
        return None
    first = min(max(0, round((low - start) / scale)), size - 1)
    end = max(min(size, round((high - start) / scale)), first + 1)
    return first, end, low, high


def _matrix(height: int, width: int, move: Move) -> npt.NDArray[np.float64]:
    """Return the 3 x 3 matrix from image coordinates to those of the rectangle."""
    angle = math.radians(move.degrees)
    turn = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    slant = np.array([[1, math.tan(math.radians(move.shear)), 0], [0, 1, 0], [0, 0, 1]])
    size = np.diag([move.scale, move.scale, 1.0])
    middle = _shift(move.left + width * move.scale / 2, move.top + height * move.scale / 2)
    return np.asarray(middle @ turn @ slant @ size @ _shift(-width / 2, -height / 2))


def pixel_matrix(level: int, matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the 3 x 3 matrix from a level's pixels to those of the rectangle, both counted from centres.

    Boxes count from pixel edges, OpenCV and the renderers from pixel centres.
    """
    down = np.array([[2.0**level, 0, 0], [0, 2.0**level, 0], [0, 0, 1]]) @ _shift(0.5, 0.5)
    return np.asarray(_shift(-0.5, -0.5) @ matrix @ down)


def _shift(x: float, y: float) -> npt.NDArray[np.float64]:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def paste(source: Source, one: Cut, canvas: UInt8Array, pad_value: int) -> None:
    """Draw an image into its rectangle.

    Args:
        source: the image.
        one: how it fills the rectangle; not FITTED.
        canvas: uint8 [h, w, 3], a rectangle of a larger canvas, filled already; written to.
        pad_value: grey level around a turned image.
    """
    image = source.level(one.level)
    if one.matrix is not None:
        cv2.warpAffine(
            image,
            pixel_matrix(one.level, one.matrix)[:2],
            (canvas.shape[1], canvas.shape[0]),
            dst=canvas,
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(pad_value,) * 3,
        )
        return
    (a, c, b, d), (x0, y0, x1, y1) = one.window, one.target
    inner = canvas[y0:y1, x0:x1]
    if (b - a, d - c) == (x1 - x0, y1 - y0):
        inner[...] = image[c:d, a:b]
    elif inner.size:
        cv2.resize(image[c:d, a:b], (x1 - x0, y1 - y0), dst=inner, interpolation=cv2.INTER_LINEAR)


def turned_boxes(boxes: FloatArray, matrices: npt.NDArray[np.float64]) -> FloatArray:
    """Return boxes, float32 [m, 4], each moved by its matrix, [m, 3, 3], and made the smallest upright one around."""
    x0, y0, x1, y1 = boxes.T.astype(np.float64)
    corners = np.stack([x0, y0, x1, y0, x1, y1, x0, y1], axis=1).reshape(-1, 4, 2)
    moved = corners @ matrices[:, :2, :2].transpose(0, 2, 1) + matrices[:, None, :2, 2]
    return np.concatenate([moved.min(axis=1), moved.max(axis=1)], axis=1).astype(np.float32)


def in_sight(
    boxes: FloatArray,
    labels: IntArray,
    frames: FloatArray,
    *,
    min_size: float,
    min_area: float,
    min_visible: float,
) -> tuple[FloatArray, IntArray]:
    """Return the boxes clipped to what is seen of them, and their labels, without those of which too little is left.

    Args:
        boxes: float32 [m, 4], xyxy.
        labels: int64 [m].
        frames: float32 [m, 4] or [1, 4], the rectangle (xyxy) in which each box can be seen.
        min_size: least width and height after clipping, in pixels.
        min_area: least area after clipping, in square pixels.
        min_visible: least part of the area that must be left by clipping.
    """
    corners = frames[:, :2]
    clipped = np.minimum(np.maximum(boxes, np.concatenate([corners, corners], axis=1)), np.tile(frames[:, 2:], 2))
    sides = clipped[:, 2:] - clipped[:, :2]
    area = sides[:, 0] * sides[:, 1]
    whole = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = (sides[:, 0] >= min_size) & (sides[:, 1] >= min_size) & (area >= min_area) & (area >= min_visible * whole)
    return clipped[kept], labels[kept]
