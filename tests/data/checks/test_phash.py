"""Near-duplicates: copies are found through re-encoding and resizing, similar images are told apart."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import simplejpeg

from eyas.data.checks.phash import fingerprint, groups, near_pairs
from eyas.data.shapes import make_scene
from eyas.types import UInt8Array


def pairs_of(*images: UInt8Array) -> list[tuple[int, int]]:
    prints = [fingerprint(image) for image in images]
    return list(near_pairs(np.array([p.bits for p in prints], np.uint64), np.stack([p.thumbnail for p in prints])))


def scene(number: int) -> UInt8Array:
    return make_scene(240, 3, number)[0]


@pytest.mark.parametrize("quality", [25, 60, 95])
@pytest.mark.parametrize("scale", [0.25, 0.6, 1.0, 1.7])
def test_copies_are_found(quality: int, scale: float) -> None:
    for number in range(4):
        image = scene(number)
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        copy = simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(np.ascontiguousarray(small), quality=quality))
        assert pairs_of(image, scene(number + 10), copy) == [(0, 2)]


def test_other_images_are_not(number: int = 60) -> None:
    assert pairs_of(*(scene(i) for i in range(number))) == []


def test_another_object_on_the_same_background_is_another_image() -> None:
    image = scene(0)
    changed = image.copy()
    cv2.circle(changed, (120, 90), 22, (255, 255, 255), -1)
    assert pairs_of(image, changed) == []


def test_many_copies_give_a_tree_of_pairs() -> None:
    prints = [fingerprint(scene(i % 2)) for i in range(300)]
    bits = np.array([p.bits for p in prints], np.uint64)
    pairs = list(near_pairs(bits, np.stack([p.thumbnail for p in prints])))
    assert len(pairs) == 298
    assert all(i < j for i, j in pairs)
    assert groups(300, iter(pairs)) == [list(range(0, 300, 2)), list(range(1, 300, 2))]


def test_a_chain_of_small_changes_is_one_group() -> None:
    """The ends differ too much from each other, but each is near its neighbour."""
    base = fingerprint(scene(0))
    thumbnails = np.stack([np.clip(base.thumbnail.astype(int) + 2 * i, 0, 255) for i in (0, 3, 1, 2)]).astype(np.uint8)
    pairs = list(near_pairs(np.full(4, base.bits, np.uint64), thumbnails))
    assert (0, 1) not in pairs
    assert groups(4, iter(pairs)) == [[0, 1, 2, 3]]
