"""Image files to pixels by OpenCV, made RGB and 8 bits deep; `eyas.decode` is the way in.

Everything is done in blocks of rows, so that beside the decoder's own pixels only the result takes memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from eyas.errors import UserError
from eyas.opencv_limits import quiet_library
from eyas.types import UInt8Array

_BLOCK = 1 << 18  # pixels that are converted at a time
_OUT_OF_MEMORY = -4  # OpenCV's StsNoMem


def decode_by_opencv(data: bytes) -> UInt8Array | None:
    """Return the image as uint8 RGB [H, W, 3]; None where OpenCV can't decode it.

    Only a TIFF's orientation is applied.

    Raises:
        UserError: the values are neither 8 nor 16 bits deep.
        MemoryError: the process has not as much as the decoder wants.
        cv2.error: the decoder complains.
    """
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # a broken file is told of once, by our own error
    try:
        with quiet_library():
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        if error.code == _OUT_OF_MEMORY or "bad_alloc" in str(error):
            raise MemoryError from None
        raise
    finally:
        cv2.utils.logging.setLogLevel(level)
    return None if pixels is None else to_rgb(pixels)


def to_rgb(pixels: npt.NDArray[np.generic]) -> UInt8Array:
    """Return RGB from grey [H, W], grey with alpha [H, W, 2], BGR [H, W, 3] or BGRA [H, W, 4]; alpha over white."""
    if pixels.dtype not in (np.uint8, np.uint16):
        raise UserError(
            f"The image's pixels are of type {pixels.dtype}.",
            expected="8 or 16 bits per channel, unsigned",
            fix="convert it to an 8-bit PNG with suitable contrast",
        )
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if channels == 3 and pixels.dtype == np.uint8:
        return np.asarray(cv2.cvtColor(np.asarray(pixels, np.uint8), cv2.COLOR_BGR2RGB), np.uint8)
    out = np.empty((*pixels.shape[:2], 3), np.uint8)
    for rows in row_blocks(out):
        out[rows] = _colours(_eight_bits(pixels[rows]), channels)
    return out


def row_blocks(image: npt.NDArray[np.generic]) -> Iterator[slice]:
    """Yield slices of rows that hold some hundred thousand pixels each."""
    step = max(1, _BLOCK // max(1, image.shape[1]))
    for start in range(0, image.shape[0], step):
        yield slice(start, start + step)


def _eight_bits(pixels: npt.NDArray[np.generic]) -> UInt8Array:
    """Return 8-bit values; 65535 becomes 255."""
    if pixels.dtype == np.uint8:
        return np.asarray(pixels, np.uint8)
    return ((np.asarray(pixels, np.uint32) + 128) // 257).astype(np.uint8)


def _colours(pixels: UInt8Array, channels: int) -> UInt8Array:
    """Return RGB from grey, grey with alpha, BGR or BGRA."""
    if channels == 1:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB), np.uint8)
    if channels == 3:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
    alpha = pixels[..., -1:]
    colour = cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB) if channels == 4 else np.repeat(pixels[..., :1], 3, axis=2)
    if int(alpha.min()) == 255:
        return np.asarray(colour, np.uint8)
    blended = colour.astype(np.uint16) * alpha + 255 * (255 - alpha.astype(np.uint16))
    return ((blended + 127) // 255).astype(np.uint8)
