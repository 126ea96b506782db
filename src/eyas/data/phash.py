"""Finding pictures that are nearly the same: re-encoded, resized or slightly changed copies.

A 64-bit perceptual hash (signs of low frequencies of the picture's cosine transform) finds candidates quickly; a small
grey thumbnail of each confirms them, so that two pictures with one background but other objects are told apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from eyas.types import UInt8Array

HASH_BITS = 8  # hashes of copies differ in at most this many of 64 bits (measured: quality 30, a fifth of the size)
THUMBNAIL = 24  # side in pixels
MEAN_DIFFERENCE = 3.0  # grey levels between two thumbnails, on average (copies: up to 1.2, another object: from 2.7)
WORST_DIFFERENCE = 20.0  # ... and at the worst pixel (copies: up to 11, another object: from 43)
_SIDE, _LOW = 32, 8

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """What near-duplicates are found by: the 64-bit hash and a grey thumbnail, uint8 [24, 24]."""

    bits: int
    thumbnail: UInt8Array


def fingerprint(image: UInt8Array) -> Fingerprint:
    """Return the fingerprint of a picture, uint8 [H, W, 3]."""
    # Shrinking first makes the conversion to grey cheap; area averaging wipes out compression noise.
    small = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    low = cv2.dct(grey)[:_LOW, :_LOW].ravel()
    low[0] = 0  # the brightness
    signs = low > np.median(low)
    bits = int(np.packbits(signs).view(">u8")[0])
    thumbnail = cv2.resize(grey, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return Fingerprint(bits, np.clip(thumbnail + 0.5, 0, 255).astype(np.uint8))


def near_pairs(bits: Hashes, thumbnails: UInt8Array) -> Iterator[tuple[int, int]]:
    """Yield (i, j), i < j, of pictures that are nearly the same.

    Args:
        bits: uint64 [N], the hashes.
        thumbnails: uint8 [N, 24, 24].
    """
    for i in range(len(bits) - 1):
        distance = np.bitwise_count(bits[i + 1 :] ^ bits[i])
        for j in np.flatnonzero(distance <= HASH_BITS) + i + 1:
            if _same(thumbnails[i], thumbnails[j]):
                yield i, int(j)


def groups(count: int, pairs: Iterator[tuple[int, int]]) -> list[list[int]]:
    """Return the connected groups of 0..count-1 under `pairs`, singles included, in order of their first member."""
    parent = list(range(count))

    def top(member: int) -> int:
        while parent[member] != member:
            parent[member] = parent[parent[member]]
            member = parent[member]
        return member

    for first, second in pairs:
        low, high = sorted((top(first), top(second)))
        parent[high] = low
    members: dict[int, list[int]] = {}
    for member in range(count):
        members.setdefault(top(member), []).append(member)
    return list(members.values())


def _same(first: UInt8Array, second: UInt8Array) -> bool:
    """Return whether two thumbnails show the same picture."""
    difference = np.abs(first.astype(np.float32) - second.astype(np.float32))
    return bool(difference.mean() <= MEAN_DIFFERENCE and difference.max() <= WORST_DIFFERENCE)
