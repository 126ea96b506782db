"""Finding images that are nearly the same: re-encoded, resized or slightly changed copies.

A 64-bit perceptual hash (signs of low frequencies of the image's cosine transform) finds candidates quickly; a small
grey thumbnail of each confirms them, so that two images with one background but other objects are told apart.
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
    """Return the fingerprint of an image, uint8 [H, W, 3]."""
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
    """Yield (i, j), i < j, that tie images which are nearly the same: a tree for each group of them, not all pairs.

    So a thousand equal frames of a video give 999 pairs and not half a million.

    Args:
        bits: uint64 [N], the hashes.
        thumbnails: uint8 [N, 24, 24].
    """
    free = np.ones(len(bits), bool)
    for start in range(len(bits)):
        waiting = [start] if free[start] else []
        free[start] = False
        while waiting:
            member = waiting.pop()
            # Whatever lies before `start` has a group already, or was compared with everything and has none.
            close = np.bitwise_count(bits[start:] ^ bits[member]) <= HASH_BITS
            near = np.flatnonzero(close & free[start:]) + start
            for other in near[_same(thumbnails[near], thumbnails[member])].tolist():
                free[other] = False
                waiting.append(other)
                yield min(member, other), max(member, other)


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


def _same(some: UInt8Array, one: UInt8Array) -> npt.NDArray[np.bool_]:
    """Return which of the thumbnails [K, 24, 24] show the same image as `one` [24, 24]: bool [K]."""
    difference = np.abs(some.astype(np.float32) - one.astype(np.float32))
    close = difference.mean(axis=(1, 2)) <= MEAN_DIFFERENCE
    return np.asarray(close & (difference.max(axis=(1, 2), initial=0) <= WORST_DIFFERENCE))
