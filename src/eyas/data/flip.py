"""Left-right flip of a canvas and its boxes."""

from __future__ import annotations

import cv2

from eyas.types import FloatArray, UInt8Array


def flip(canvas: UInt8Array, boxes: FloatArray) -> FloatArray:
    """Flip the picture (uint8 [H, W, 3]) in place and return its boxes (float32 [m, 4], xyxy) flipped."""
    cv2.flip(canvas, 1, dst=canvas)
    flipped = boxes.copy()
    flipped[:, 0] = canvas.shape[1] - boxes[:, 2]
    flipped[:, 2] = canvas.shape[1] - boxes[:, 0]
    return flipped
