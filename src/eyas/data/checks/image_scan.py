"""Decoding every image of a dataset once, in parallel, and keeping what the checks need of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eyas.data.checks.phash import THUMBNAIL, Hashes, fingerprint
from eyas.data.index import SizeArray
from eyas.decode import read_image
from eyas.errors import UserError
from eyas.machine.cores import usable_cores
from eyas.progress import track
from eyas.read_ahead import ahead
from eyas.types import UInt8Array

MISSING = "missing"


@dataclass(frozen=True, eq=False)
class Scan:
    """What decoding N images showed.

    Attributes:
        faults: why each could not be read, "" if it could, MISSING if there is no file.
        sizes: int32 [N, 2], (height, width) as decoded, upright; zeros for the faulty.
        bits: uint64 [N], perceptual hashes.
        thumbnails: uint8 [N, 24, 24].
    """

    faults: tuple[str, ...]
    sizes: SizeArray
    bits: Hashes
    thumbnails: UInt8Array


def scan_images(paths: Sequence[Path], *, workers: int | None = None) -> Scan:
    """Decode every image completely and return what was found.

    Args:
        paths: the images.
        workers: number of threads; one a core if None.
    """
    faults: list[str] = []
    sizes = np.zeros((len(paths), 2), np.int32)
    bits = np.zeros(len(paths), np.uint64)
    thumbnails = np.zeros((len(paths), THUMBNAIL, THUMBNAIL), np.uint8)
    scanned = ahead(scan_image, map(str, paths), workers or usable_cores())
    found = track(scanned, len(paths), "decoding images")
    for i, (fault, size, image_bits, thumbnail) in enumerate(found):
        faults.append(fault)
        sizes[i] = size
        bits[i] = image_bits
        if thumbnail is not None:
            thumbnails[i] = thumbnail
    return Scan(tuple(faults), sizes, bits, thumbnails)


def scan_image(path: str) -> tuple[str, tuple[int, int], int, UInt8Array | None]:
    """Return (fault or "", (height, width), hash, thumbnail or None) of one image."""
    if not Path(path).is_file():
        return MISSING, (0, 0), 0, None
    try:
        image = read_image(path)
    except UserError as error:
        return error.problem, (0, 0), 0, None
    print_of = fingerprint(image)
    return "", (image.shape[0], image.shape[1]), print_of.bits, print_of.thumbnail
