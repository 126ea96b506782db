"""Resize and pad an image to a network's input, and map boxes there and back. Training and inference share it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from eyas.types import FloatArray, InputSpec, UInt8Array


@dataclass(frozen=True)
class Placement:
    """Where an image lies in the network's frame: x' = x * scale_x + left, y' = y * scale_y + top.

    Attributes:
        scale_x, scale_y: network pixels an image pixel (they differ by rounding only).
        left, top: the first column and row that the image covers.
        width, height: the image's size in the frame, in network pixels.
    """

    scale_x: float
    scale_y: float
    left: int
    top: int
    width: int
    height: int


def place(height: int, width: int, spec: InputSpec) -> Placement:
    """Return where an image of `height` x `width` goes in the frame of `spec`."""
    ratio = min((spec.height - spec.margin) / height, (spec.width - spec.margin) / width)
    new_width = max(1, round(width * ratio))
    new_height = max(1, round(height * ratio))
    centred = spec.pad_mode == "center"
    left = (spec.width - new_width) // 2 if centred else 0
    top = (spec.height - new_height) // 2 if centred else 0
    return Placement(new_width / width, new_height / height, left, top, new_width, new_height)


def letterbox(image: UInt8Array, spec: InputSpec, out: UInt8Array | None = None) -> tuple[UInt8Array, Placement]:
    """Return the image resized and padded, uint8 [spec.height, spec.width, 3], and its placement.

    Args:
        image: uint8 [H, W, 3].
        spec: the input contract.
        out: an array of the right shape to write into (a slot of a batch); a new one if None.
    """
    placed = place(image.shape[0], image.shape[1], spec)
    if out is None:
        out = np.empty((spec.height, spec.width, 3), np.uint8)
    left, top, right, bottom = placed.left, placed.top, placed.left + placed.width, placed.top + placed.height
    out[:top], out[bottom:] = spec.pad_value, spec.pad_value
    out[top:bottom, :left], out[top:bottom, right:] = spec.pad_value, spec.pad_value
    inner = out[top:bottom, left:right]
    if image.shape[:2] == (placed.height, placed.width):
        inner[...] = image
    else:
        _resize_into(image, inner)
    return out, placed


def _resize_into(image: UInt8Array, out: UInt8Array) -> None:
    """Resize the image to the size of `out`, in place, so that every pixel counts when it shrinks.

    Linear interpolation alone skips pixels, and with them small objects, when an image shrinks by more than two. Means
    over 2 x 2 pixels bring it near the size first: as good as averaging over the exact areas, and eight times as fast.
    """
    height, width = out.shape[:2]
    while _halves(image.shape[0], height) and _halves(image.shape[1], width):
        size = (image.shape[1] // 2, image.shape[0] // 2)
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    # What is left to shrink by more than two has an odd side, which has no exact half.
    left = image.shape[0] > 2 * height or image.shape[1] > 2 * width
    cv2.resize(image, (width, height), dst=out, interpolation=cv2.INTER_AREA if left else cv2.INTER_LINEAR)


def _halves(side: int, target: int) -> bool:
    return side % 2 == 0 and side >= 2 * target


def to_frame(boxes: FloatArray, placed: Placement) -> FloatArray:
    """Return image boxes [M, 4] in network pixels."""
    scale = np.array([placed.scale_x, placed.scale_y] * 2, np.float32)
    return np.asarray(boxes * scale + np.array([placed.left, placed.top] * 2, np.float32), dtype=np.float32)


def from_frame(boxes: FloatArray, placed: Placement) -> FloatArray:
    """Return network boxes [M, 4] in image pixels (not clipped)."""
    scale = np.array([placed.scale_x, placed.scale_y] * 2, np.float32)
    return np.asarray((boxes - np.array([placed.left, placed.top] * 2, np.float32)) / scale, dtype=np.float32)
