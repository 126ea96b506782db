"""What the store keeps of each image: all that can be asked for, packed as planned, in the memory that was said."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.scenes import textured

from eyas.data.augment.affine import FITTED
from eyas.data.augment.config import AugmentPolicy
from eyas.data.device.layout import COLUMNS, Layout, column_of
from eyas.data.device.store import margin, store_bytes
from eyas.data.loading.source import Source
from eyas.letterbox import letterbox
from eyas.training.recipes import yolo_nas_coco
from eyas.types import InputSpec

NONE = AugmentPolicy.none()
SPEC = InputSpec(64, 96)


def source(height: int, width: int) -> Source:
    """Return an image without boxes."""
    return Source(textured(1, height, width), np.zeros((0, 4), np.float32), np.zeros(0, np.int64), (height, width))


@pytest.mark.parametrize("policy", [NONE, AugmentPolicy(), yolo_nas_coco().augment], ids=["none", "scratch", "coco"])
@given(height=st.integers(1, 300), width=st.integers(1, 300))
def test_parts_lie_where_the_table_says(policy: AugmentPolicy, height: int, width: int) -> None:
    layout, image = Layout(SPEC, (policy,)), source(height, width)
    packed, starts = layout.pack(image), layout.starts(height, width)
    assert packed.shape == (layout.pixels(height, width), 3) and starts.shape == (COLUMNS,)
    for part in layout.parts(height, width):
        start = starts[column_of(part.level, part.mirrored)]
        pixels = packed[start : start + part.height * part.width].reshape(part.height, part.width, 3)
        if part.level == FITTED:
            whole, placed = letterbox(image.image, SPEC)
            expected = whole[placed.top : placed.top + placed.height, placed.left : placed.left + placed.width]
        elif part.mirrored:
            expected = cv2.flip(source_of(cv2.flip(image.image, 1)).level(part.level), 1)
        else:
            expected = image.level(part.level)
        assert np.array_equal(pixels, expected)


def source_of(image: np.ndarray) -> Source:
    """Return an image of these pixels."""
    return Source(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), image.shape[:2])


def test_what_no_policy_asks_for_is_not_kept() -> None:
    levels = [part.level for part in Layout(SPEC, (AugmentPolicy(scale=(0.5, 1.5)),)).parts(640, 960)]
    assert levels == [2, 3, 4]  # a tenth fits: 0.15 to 0.05 of the image
    assert [part.level for part in Layout(SPEC, (NONE,)).parts(640, 960)] == [FITTED]
    both = Layout(SPEC, (AugmentPolicy(scale=(0.5, 1.5)), NONE))
    assert [part.level for part in both.parts(640, 960)] == [FITTED, 2, 3, 4]
    assert Layout(SPEC, (NONE,)).parts(0, 0) == ()


def test_memory_is_said_from_sizes_alone() -> None:
    layout = Layout(SPEC, (AugmentPolicy(),))
    sizes = np.array([[480, 640], [480, 640], [64, 96], [0, 0], [7, 5]])
    pixels = sum(layout.pixels(*layout.decoded(*size)) for size in sizes.tolist())
    assert layout.nbytes(sizes) == 3 * pixels
    assert store_bytes(layout, sizes) == 3 * pixels + 6 * margin(layout, sizes)
    assert layout.decoded(480, 640) == (120, 160)  # 1/7.5 fits, and half as much again may be asked for
    assert Layout(SPEC, (NONE,)).decoded(480, 640) == (480, 640)


def test_halves_of_a_mirrored_image_are_kept_where_they_are_others() -> None:
    mixed = dataclasses.replace(yolo_nas_coco().augment, mixup=1.0, flip=0.5)
    starts = Layout(InputSpec(32, 32), (mixed,)).starts(40, 36)
    assert starts[column_of(1, mirrored=True)] == starts[column_of(1, mirrored=False)]  # 36 has a half,
    assert starts[column_of(2, mirrored=True)] == starts[column_of(2, mirrored=False)]  # and that one too,
    assert starts[column_of(3, mirrored=True)] != starts[column_of(3, mirrored=False)]  # 9 has none
    assert starts[column_of(0, mirrored=True)] == starts[column_of(0, mirrored=False)] >= 0
