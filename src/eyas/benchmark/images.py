"""The images that a benchmark runs on: the user's own, or made-up ones that decode like photographs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from eyas.errors import UserError
from eyas.runtime.sources import ImageFile, OneSource, expand
from eyas.types import UInt8Array

MADE_UP = 4
MOST = 64  # images of a folder that are used, evenly spread over it
QUALITY = 92
# Two- to two-hundred-fold detail, falling as it does in photographs: contrast / cells ** FALL.
CELLS, CONTRAST, FALL, NOISE = (4, 8, 16, 32, 64, 128, 256), 60.0, 0.45, 5.0


def made_up_image(seed: int, height: int = 480, width: int = 640) -> UInt8Array:
    """Return an image with detail at every size and a camera's noise, uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 120.0, np.float32)
    for cells in CELLS:
        grey = rng.normal(0, CONTRAST / cells**FALL, (cells * 3 // 4, cells, 1))
        tint = rng.normal(0, 0.3 * CONTRAST / cells**FALL, (cells * 3 // 4, cells, 3))
        coarse = (grey + tint).astype(np.float32)
        image += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    image += rng.normal(0, NOISE, (height, width, 1)).astype(np.float32)
    return np.clip(image, 0, 255).astype(np.uint8)


def write_images(folder: Path, num: int = MADE_UP) -> list[Path]:
    """Write made-up images as JPEG files of 640 x 480 pixels (4:2:0, quality 92) and return their paths."""
    paths = [folder / f"made-up-{seed}.jpg" for seed in range(num)]
    for seed, path in enumerate(paths):
        path.write_bytes(simplejpeg.encode_jpeg(made_up_image(seed), quality=QUALITY, colorsubsampling="420"))
    return paths


def find_images(source: OneSource | Sequence[OneSource]) -> list[Path]:
    """Return the image files of a source, at most `MOST`.

    Raises:
        UserError: the source is missing or has no image files.
    """
    found = [item.path for item in expand(source) if isinstance(item, ImageFile)]
    if not found:
        raise UserError("The source has no images.", where="source", expected="image files, or a folder of them")
    return [found[i] for i in np.unique(np.linspace(0, len(found) - 1, min(MOST, len(found))).astype(int))]
