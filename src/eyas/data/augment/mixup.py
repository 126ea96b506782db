"""Two canvases blended into one: mixup (arXiv 1710.09412), as YOLOX has it for detection, the boxes of both kept."""

from __future__ import annotations

import cv2

from eyas.types import UInt8Array

WEIGHTS = (0.4, 0.6)  # the least and the greatest part that a sample has in the blend


def mixup(canvas: UInt8Array, other: UInt8Array, weight: float) -> None:
    """Blend `other` by 1 - `weight` into `canvas` (both uint8 [H, W, 3]), in place."""
    cv2.addWeighted(canvas, weight, other, 1 - weight, 0, dst=canvas)
