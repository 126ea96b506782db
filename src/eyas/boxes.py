"""Geometry of axis-aligned boxes in numpy: xyxy, float32, pixels. Every function is pure and takes [..., 4] arrays."""

from __future__ import annotations

import numpy as np

from eyas.types import FloatArray


def xywh_to_xyxy(boxes: FloatArray) -> FloatArray:
    """Return xyxy of boxes given as (left, top, width, height)."""
    out = boxes.copy()
    out[..., 2:] += out[..., :2]
    return out


def xyxy_to_xywh(boxes: FloatArray) -> FloatArray:
    """Return (left, top, width, height) of xyxy boxes."""
    out = boxes.copy()
    out[..., 2:] -= out[..., :2]
    return out


def cxcywh_to_xyxy(boxes: FloatArray) -> FloatArray:
    """Return xyxy of boxes given as (centre x, centre y, width, height)."""
    half = boxes[..., 2:] / 2
    return np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], axis=-1)


def xyxy_to_cxcywh(boxes: FloatArray) -> FloatArray:
    """Return (centre x, centre y, width, height) of xyxy boxes."""
    return np.concatenate([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], axis=-1)


def area(boxes: FloatArray) -> FloatArray:
    """Return the area of each box in square pixels, 0 for an inverted one: [...]."""
    size = np.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return np.asarray(size[..., 0] * size[..., 1])


def clip(boxes: FloatArray, height: float, width: float) -> FloatArray:
    """Return the boxes cut to the frame [0, width] x [0, height]."""
    limit = np.array([width, height, width, height], dtype=boxes.dtype)
    return np.asarray(np.clip(boxes, 0, limit))


def pairwise_iou(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return the intersection over union of each of [N, 4] with each of [M, 4]: [N, M], 0 for empty boxes."""
    top_left = np.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = np.minimum(first[:, None, 2:], second[None, :, 2:])
    size = np.maximum(bottom_right - top_left, 0)
    intersection = size[..., 0] * size[..., 1]
    union = area(first)[:, None] + area(second)[None, :] - intersection
    return np.asarray(intersection / np.maximum(union, 1e-9), dtype=np.float32)
