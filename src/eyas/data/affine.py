"""One picture put into one rectangle of a canvas: size, place, rotation and slant in a single resampling."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from eyas.data.pictures import Source
from eyas.types import FloatArray, IntArray, UInt8Array


@dataclass(frozen=True)
class Move:
    """Where a picture goes: pixel x of the picture comes to x * scale + left of the rectangle, before it is turned.

    Attributes:
        scale: rectangle pixels a picture pixel.
        left, top: where the picture's corner comes to, in pixels of the rectangle (may lie outside).
        degrees: rotation about the picture's middle, clockwise as seen.
        shear: slant about the picture's middle, in degrees.
    """

    scale: float
    left: float
    top: float
    degrees: float = 0.0
    shear: float = 0.0


def paste(source: Source, move: Move, canvas: UInt8Array, pad_value: int) -> FloatArray:
    """Draw the picture into `canvas` and return its boxes there.

    Args:
        source: the picture with its boxes.
        move: where it goes.
        canvas: uint8 [h, w, 3], a rectangle of a larger canvas, filled with `pad_value`; written to.
        pad_value: grey level outside the picture.

    Returns:
        float32 [m, 4], the boxes in pixels of `canvas`, not clipped to it. A turned box is the smallest upright one
        around it.
    """
    if move.degrees or move.shear:
        return _warp(source, move, canvas, pad_value)
    return _resize(source, move, canvas)


def _level(source: Source, scale: float) -> int:
    """Return how often a picture is to be halved first so that the rest of the way down is by less than two."""
    if scale >= 0.5:
        return 0
    possible = int(min(source.image.shape[:2])).bit_length() - 1
    return min(math.ceil(-math.log2(scale)) - 1, possible)


def _resize(source: Source, move: Move, canvas: UInt8Array) -> FloatArray:
    """Resize the part of the picture that is in sight straight into its place; four times faster than a warp.

    The part has whole pixels on both sides, so its scale is off by less than a pixel over the part; the boxes follow
    the scale that was really used.
    """
    number = _level(source, move.scale)
    image = source.level(number)
    across = _axis(image.shape[1], move.scale * 2**number, move.left, canvas.shape[1])
    down = _axis(image.shape[0], move.scale * 2**number, move.top, canvas.shape[0])
    if across is None or down is None:
        # Out of sight: the boxes are moved as asked, and the caller drops them.
        return np.asarray(source.boxes * move.scale + _pair(move.left, move.top), np.float32)
    (a, b, x0, x1), (c, d, y0, y1) = across, down
    inner = canvas[y0:y1, x0:x1]
    if (b - a, d - c) == (x1 - x0, y1 - y0):
        inner[...] = image[c:d, a:b]
    else:
        cv2.resize(image[c:d, a:b], (x1 - x0, y1 - y0), dst=inner, interpolation=cv2.INTER_LINEAR)
    scale_x, scale_y = (x1 - x0) / (b - a), (y1 - y0) / (d - c)
    step = 0.5**number  # level pixels a picture pixel
    scales = _pair(scale_x * step, scale_y * step)
    return np.asarray(source.boxes * scales + _pair(x0 - a * scale_x, y0 - c * scale_y), np.float32)


def _axis(size: int, scale: float, start: float, room: int) -> tuple[int, int, int, int] | None:
    """Return (first, end) pixels of the picture in sight and where they go, (first, end) in the rectangle.

    None if nothing is in sight.
    """
    low = max(0, round(start))
    high = min(room, round(start + size * scale))
    if high <= low:
        return None
    first = min(max(0, round((low - start) / scale)), size - 1)
    end = max(min(size, round((high - start) / scale)), first + 1)
    return first, end, low, high


def _warp(source: Source, move: Move, canvas: UInt8Array, pad_value: int) -> FloatArray:
    """Turn and slant the picture into its place."""
    matrix = _matrix(source, move)
    number = _level(source, move.scale)
    image = source.level(number)
    # OpenCV counts from pixel centres, boxes from pixel edges.
    down = np.array([[2.0**number, 0, 0], [0, 2.0**number, 0], [0, 0, 1]]) @ _shift(0.5, 0.5)
    centred = _shift(-0.5, -0.5) @ matrix @ down
    cv2.warpAffine(
        image,
        centred[:2],
        (canvas.shape[1], canvas.shape[0]),
        dst=canvas,
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(pad_value,) * 3,
    )
    x0, y0, x1, y1 = source.boxes.T.astype(np.float64)
    corners = np.stack([x0, y0, x1, y0, x1, y1, x0, y1], axis=1).reshape(-1, 4, 2)
    moved = corners @ matrix[:2, :2].T + matrix[:2, 2]
    return np.concatenate([moved.min(axis=1), moved.max(axis=1)], axis=1).astype(np.float32)


def _matrix(source: Source, move: Move) -> npt.NDArray[np.float64]:
    """Return the 3 x 3 matrix from picture coordinates to those of the rectangle."""
    height, width = source.image.shape[:2]
    angle = math.radians(move.degrees)
    turn = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    slant = np.array([[1, math.tan(math.radians(move.shear)), 0], [0, 1, 0], [0, 0, 1]])
    size = np.diag([move.scale, move.scale, 1.0])
    middle = _shift(move.left + width * move.scale / 2, move.top + height * move.scale / 2)
    return np.asarray(middle @ turn @ slant @ size @ _shift(-width / 2, -height / 2))


def _shift(x: float, y: float) -> npt.NDArray[np.float64]:
    """Return the 3 x 3 matrix that adds (x, y)."""
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def _pair(x: float, y: float) -> FloatArray:
    """Return (x, y, x, y) for boxes."""
    return np.array([x, y, x, y], np.float32)


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
