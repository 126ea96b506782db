"""Colour jitter: one 3 x 4 matrix for contrast, brightness, saturation, hue and white balance, a table for gamma.

Shifts of hue, saturation and value themselves are there too, for the recipe that YOLO-NAS was published with.

A matrix on RGB takes 0.3 ms for 640 x 640 and does what the usual round trip through HSV does in 2 ms; a lookup table
for each channel takes 1.8 ms with OpenCV 5 and can't change saturation or hue. One table for all channels, which is
all that gamma needs, takes 0.5 ms.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from eyas.data.policy import AugmentPolicy
from eyas.types import FloatArray, UInt8Array

_LUMA = np.array([0.299, 0.587, 0.114])
_SWAP = np.eye(3)[::-1]


def jitter(canvas: UInt8Array, policy: AugmentPolicy, rng: np.random.Generator) -> None:
    """Change the colours of a picture (uint8 [H, W, 3], RGB) in place, as far as the policy allows."""
    cv2.transform(canvas, matrix(policy, rng), dst=canvas)
    if policy.gamma:
        exponent = (1 + policy.gamma) ** rng.uniform(-1, 1)
        cv2.LUT(canvas, gamma_table(exponent), dst=canvas)
    if policy.hsv_chance and rng.random() < policy.hsv_chance:
        shift_hsv(canvas, policy.hsv, rng)


def matrix(policy: AugmentPolicy, rng: np.random.Generator) -> FloatArray:
    """Return a random colour matrix, float32 [3, 4]: RGB' = matrix[:, :3] @ RGB + matrix[:, 3], values 0..255."""
    draws = rng.uniform(-1, 1, 7)
    gains = (1 + policy.gain * draws[0]) * (1 + policy.tint * draws[1:4])
    offset = 255 * policy.offset * draws[4]
    colours = np.diag(gains) @ _saturation(1 + policy.saturation * draws[5]) @ _hue(policy.hue * draws[6])
    if policy.swap and rng.random() < policy.swap:
        colours = _SWAP @ colours
    return np.concatenate([colours, np.full((3, 1), offset)], axis=1).astype(np.float32)


def gamma_table(exponent: float) -> UInt8Array:
    """Return the table of v ** exponent for v = 0..255 on a scale of 0..1, uint8 [256]."""
    return np.rint(255 * (np.arange(256) / 255) ** exponent).astype(np.uint8)


def shift_hsv(canvas: UInt8Array, most: tuple[float, float, float], rng: np.random.Generator) -> None:
    """Add random whole numbers to hue, saturation and value of a picture (uint8 [H, W, 3], RGB) in place.

    Args:
        canvas: the picture.
        most: greatest shifts of hue (a full turn is 180), saturation and value (0..255, where they end).
        rng: draws the shifts, and which of the three are shifted: each in half of the cases.
    """
    shifts = (rng.uniform(-1, 1, 3) * most * rng.integers(0, 2, 3)).astype(np.int64)  # towards 0
    if not shifts.any():
        return
    values = np.arange(256)
    tables = np.stack([(values + shifts[0]) % 180, *(np.clip(values + shift, 0, 255) for shift in shifts[1:])], axis=1)
    hsv = cv2.LUT(cv2.cvtColor(canvas, cv2.COLOR_RGB2HSV), tables.astype(np.uint8)[None])
    canvas[...] = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def _saturation(factor: float) -> npt.NDArray[np.float64]:
    """Return the matrix that moves colours away from (factor > 1) or towards their grey."""
    return factor * np.eye(3) + (1 - factor) * np.tile(_LUMA, (3, 1))


def _hue(degrees: float) -> npt.NDArray[np.float64]:
    """Return the rotation of RGB space about the grey axis."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    third, root = (1 - cosine) / 3, sine / math.sqrt(3)
    row = [third + cosine, third - root, third + root]
    return np.array([row, row[2:] + row[:2], row[1:] + row[:1]])
