"""Feeding an engine that takes so many images at once with batches of any size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from eyas.types import FloatArray, UInt8Array

Run = Callable[[UInt8Array], tuple[FloatArray, FloatArray]]


def run_in_chunks(run: Run, images: UInt8Array, batch: tuple[int, int]) -> tuple[FloatArray, FloatArray]:
    """Return (boxes, scores) of all images, run `batch[1]` at a time; too few are filled up with blank ones.

    Args:
        run: takes uint8 [N, H, W, 3] with batch[0] <= N <= batch[1].
        images: uint8 [N, H, W, 3], any N >= 1.
        batch: least and greatest number of images that `run` takes.
    """
    least, most = batch
    if least <= len(images) <= most:
        return run(images)
    parts = [_padded(run, images[start : start + most], least) for start in range(0, len(images), most)]
    return np.concatenate([boxes for boxes, _ in parts]), np.concatenate([scores for _, scores in parts])


def _padded(run: Run, images: UInt8Array, least: int) -> tuple[FloatArray, FloatArray]:
    num = len(images)
    if num < least:
        images = np.concatenate([images, np.zeros((least - num, *images.shape[1:]), np.uint8)])
    boxes, scores = run(images)
    return boxes[:num], scores[:num]
