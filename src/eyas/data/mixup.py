"""Two canvases blended into one, with the boxes of both (mixup, arXiv 1710.09412, as YOLOX has it for detection)."""

from __future__ import annotations

import cv2
import numpy as np

from eyas.types import FloatArray, IntArray, UInt8Array

Truth = tuple[FloatArray, IntArray]


def mixup(canvas: UInt8Array, truth: Truth, other: UInt8Array, other_truth: Truth, rng: np.random.Generator) -> Truth:
    """Blend `other` into `canvas` (both uint8 [H, W, 3]) in place, 40 to 60 parts of a hundred; return all boxes."""
    weight = rng.uniform(0.4, 0.6)
    cv2.addWeighted(canvas, weight, other, 1 - weight, 0, dst=canvas)
    return np.concatenate([truth[0], other_truth[0]]), np.concatenate([truth[1], other_truth[1]])
