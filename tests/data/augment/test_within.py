"""Augmentation within the image's own rectangle: the same as SuperGradients' chain of steps, written down slowly."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from tests.data import scenes

from eyas.data.augment.colour import draw_shifts, shift_hsv
from eyas.data.augment.config import AugmentPolicy
from eyas.data.augment.within import within_image
from eyas.data.loading.source import Source
from eyas.errors import UserError
from eyas.training.recipes import yolo_nas_coco

STILL = {
    "mosaic": 0.0, "mixup": 0.0, "flip": 0.0, "scale": (1.0, 1.0), "translate": 0.0, "gain": 0.0, "offset": 0.0,
    "saturation": 0.0, "hue": 0.0, "tint": 0.0, "min_area": 0.0, "min_visible": 0.0, "within": "image",
}  # fmt: skip


def source(height: int, width: int, boxes: list[list[float]], value: int | None = None, seed: int = 0) -> Source:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    if value is not None:
        image[:] = value
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return Source(image, array, np.arange(len(array), dtype=np.int64), (height, width))


def drawn(one: Source, policy: AugmentPolicy, partner: Source | None = None, seed: int = 0, size: int = 64):
    canvas = np.zeros((size, size, 3), np.uint8)
    other = partner or one
    plan = within_image(one, lambda: other, (size, size), policy, np.random.default_rng(seed))
    return canvas, *scenes.drawn(plan, canvas, policy, 114)


def test_an_unmoved_image_lies_in_the_upper_left_corner() -> None:
    one = source(48, 64, [[10, 20, 30, 40]])
    canvas, boxes, labels = drawn(one, AugmentPolicy(**STILL))
    assert np.array_equal(canvas[:48], one.image) and (canvas[48:] == 114).all()
    assert boxes.tolist() == [[10, 20, 30, 40]] and labels.tolist() == [0]


@pytest.mark.parametrize("seed", range(12))
def test_size_and_place_are_parts_of_the_images_own(seed: int) -> None:
    """The box of the whole image is moved as far as a quarter of its own sides, and never leaves its rectangle."""
    one = source(32, 64, [[0, 0, 64, 32]], value=200)
    policy = AugmentPolicy(**{**STILL, "scale": (0.5, 1.5), "translate": 0.25})
    canvas, boxes, _ = drawn(one, policy, seed=seed)
    assert (canvas[32:] == 114).all()
    rows, columns = np.nonzero((canvas[:32] == 200).all(axis=2))
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(boxes[0], box, atol=1.01)
    middle = boxes[0, :2] + boxes[0, 2:]
    assert abs(middle[0] / 2 - 32) <= 16 + 8 and abs(middle[1] / 2 - 16) <= 8 + 4


def test_flip_stays_within_the_image() -> None:
    one = source(64, 32, [[2, 4, 10, 20]])
    canvas, boxes, _ = drawn(one, AugmentPolicy(**{**STILL, "flip": 1.0}))
    assert np.array_equal(canvas[:, :32], one.image[:, ::-1]) and (canvas[:, 32:] == 114).all()
    assert boxes.tolist() == [[22, 4, 30, 20]]


@pytest.mark.parametrize("seed", range(12))
def test_the_partner_is_plain_and_shines_through_by_half(seed: int) -> None:
    one = source(48, 64, [[0, 0, 20, 20]], value=50)
    other = source(24, 24, [[0, 0, 24, 24]], value=250)
    policy = AugmentPolicy(**{**STILL, "mixup": 1.0, "scale": (0.5, 1.5), "translate": 0.0})
    canvas, boxes, labels = drawn(one, policy, other, seed=seed)
    seen = set(np.unique(canvas[:48]).tolist())
    # Of (the image or its padding) and (the partner, its padding, or the black beside it).
    assert seen <= {150, 82, 25, 182, 114, 57}, seen
    assert (canvas[48:] == 114).all()
    box = boxes[-1]
    whole = (canvas[:48] == 150).all(axis=2) | (canvas[:48] == 182).all(axis=2)
    rows, columns = np.nonzero(whole)
    np.testing.assert_allclose(box, [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], atol=1.01)
    assert labels[-1] == 0 and len(labels) == 2


BOXES = {
    "kept": ([10, 10, 40, 40], True),
    "a side of two pixels": ([10, 10, 12, 40], False),
    "a side above two": ([10, 10, 13, 40], True),
    "20 times as long as wide": ([0, 10, 60, 13], False),
    "19 times": ([0, 10, 57, 13.01], True),
}


@pytest.mark.parametrize("name", BOXES)
@pytest.mark.parametrize("size", [64, 128])
def test_boxes_are_filtered_in_the_images_pixels(name: str, size: int) -> None:
    """In a frame of 64 the image is shrunk by two: two pixels of it are one of the frame."""
    box, stays = BOXES[name]
    policy = AugmentPolicy(**{**STILL, "min_size": 2.0, "max_aspect": 20.0, "min_ratio": 0.1})
    _, boxes, _ = drawn(source(128, 128, [box]), policy, size=size)
    assert len(boxes) == stays


@pytest.mark.parametrize(("scale", "stays"), [(0.29, False), (0.34, True)])
def test_a_box_that_shrank_below_a_tenth_of_its_area_is_dropped(scale: float, stays: bool) -> None:
    policy = AugmentPolicy(**{**STILL, "scale": (scale, scale), "min_ratio": 0.1})
    _, boxes, _ = drawn(source(96, 96, [[0, 0, 96, 96]]), policy, size=96)
    assert len(boxes) == stays


def test_hsv_shifts_are_of_the_published_size() -> None:
    """Half of the images are untouched; the others change by some values of 255, not by tens."""
    policy = AugmentPolicy(**{**STILL, "hsv": (18.0, 30.0, 30.0), "hsv_chance": 0.5})
    one = source(48, 64, [])
    smooth = np.indices((48, 64, 3)).sum(axis=0) * 2 % 256
    one.image[:] = smooth
    changes = []
    for seed in range(400):
        canvas, _, _ = drawn(one, policy, seed=seed)
        changes.append(np.abs(canvas[:48].astype(int) - one.image).mean())
    untouched = np.mean(np.array(changes) == 0)
    assert 0.5 < untouched < 0.63  # a half, and an eighth of the other half, where nothing is drawn
    assert 2 < np.mean(changes) < 8


def test_hsv_shifts_are_whole_numbers_added_to_the_channels() -> None:
    image = np.random.default_rng(3).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    for seed in range(20):
        shifted = image.copy()
        shift_hsv(shifted, draw_shifts((18.0, 30.0, 30.0), np.random.default_rng(seed)))
        rng = np.random.default_rng(seed)
        draws, chosen = rng.uniform(-1, 1, 3) * [18, 30, 30], rng.integers(0, 2, 3)
        shifts = np.trunc(draws * chosen).astype(int)
        before = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(int)
        expected = np.stack(
            [(before[..., 0] + shifts[0]) % 180, *(np.clip(before[..., i] + shifts[i], 0, 255) for i in (1, 2))], axis=2
        )
        expected = cv2.cvtColor(expected.astype(np.uint8), cv2.COLOR_HSV2RGB) if shifts.any() else image
        assert np.array_equal(shifted, expected)


def test_a_mosaic_is_not_within_an_image() -> None:
    with pytest.raises(UserError, match="mosaic"):
        AugmentPolicy(mosaic=0.5, within="image")


def test_a_remembered_image_is_not_changed() -> None:
    one, other = source(40, 40, [[1, 1, 30, 30]]), source(30, 50, [[1, 1, 20, 20]], seed=1)
    images = one.image.copy(), other.image.copy()
    boxes = one.boxes.copy(), other.boxes.copy()
    for seed in range(10):
        drawn(one, yolo_nas_coco().augment, other, seed=seed)
    assert np.array_equal(one.image, images[0]) and np.array_equal(other.image, images[1])
    assert np.array_equal(one.boxes, boxes[0]) and np.array_equal(other.boxes, boxes[1])
