"""Boxes follow the pixels: a white rectangle on black, moved in every way, lies where its box says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.scenes import extent, paste, rectangle, textured

from eyas.data.augment.affine import Move, cut, in_sight
from eyas.data.loading.source import Source

HEIGHT, WIDTH = 120, 160
CANVAS = 144

corners = st.tuples(st.integers(0, 100), st.integers(0, 70), st.integers(30, 60), st.integers(30, 50))


def draw(corner: tuple[int, int, int, int], move: Move) -> tuple[np.ndarray, np.ndarray]:
    """Return the mask of a moved rectangle on the canvas and its box clipped to it."""
    x, y, width, height = corner
    source = rectangle((x, y, x + width, y + height), HEIGHT, WIDTH)
    canvas = np.zeros((CANVAS + 20, CANVAS + 30, 3), np.uint8)
    boxes = paste(source, move, canvas[10:-10, 10:-20], 0)  # a part of a larger canvas, as in a mosaic
    assert not canvas[:10].any() and not canvas[-10:].any() and not canvas[:, :10].any() and not canvas[:, -20:].any()
    return canvas[10:-10, 10:-20, 0] > 127, boxes[0].clip(0, CANVAS)


def agree(mask: np.ndarray, box: np.ndarray, pixels: float) -> None:
    """Check that the rectangle is seen where the box says, or not at all where the box is a sliver."""
    if (box[2:] - box[:2]).min() < 3:
        return
    assert np.abs(extent(mask) - box).max() <= pixels


@given(corner=corners, scale=st.floats(0.15, 2.5), left=st.floats(-90, 90), top=st.floats(-90, 90))
def test_resized_and_shifted(corner: tuple[int, int, int, int], scale: float, left: float, top: float) -> None:
    agree(*draw(corner, Move(scale, left, top)), pixels=1.5)


@given(
    corner=corners,
    scale=st.floats(0.3, 2.0),
    left=st.floats(-60, 60),
    top=st.floats(-60, 60),
    degrees=st.floats(-45, 45),
    shear=st.floats(-15, 15),
)
def test_turned_and_slanted(
    corner: tuple[int, int, int, int], scale: float, left: float, top: float, degrees: float, shear: float
) -> None:
    mask, box = draw(corner, Move(scale, left, top, degrees, shear))
    x, y, width, height = corner
    # Where the canvas cuts a turned rectangle, the upright box around the whole is larger than what is left.
    whole = paste(
        rectangle((x, y, x + width, y + height), HEIGHT, WIDTH),
        Move(scale, left, top, degrees, shear),
        np.zeros((CANVAS, CANVAS, 3), np.uint8),
        0,
    )[0]
    if np.array_equal(whole, box):
        agree(mask, box, pixels=1.5)
    elif (box[2:] - box[:2]).min() >= 3 and mask.any():
        seen = extent(mask)
        assert (seen[:2] >= box[:2] - 1.5).all() and (seen[2:] <= box[2:] + 1.5).all()


def test_rotation_is_clockwise_about_the_middle() -> None:
    canvas = np.zeros((160, 160, 3), np.uint8)
    paste(rectangle((2, 4, 6, 8), 160, 160), Move(1.0, 0.0, 0.0, degrees=90.0), canvas, 0)
    # What was in the upper left corner comes to the upper right.
    assert extent(canvas[..., 0] > 127).tolist() == pytest.approx([152, 2, 156, 6], abs=1)


def test_warp_and_resize_agree_on_where_things_are() -> None:
    image = textured(3, HEIGHT, WIDTH)
    source = Source(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), (HEIGHT, WIDTH))
    plain, warped = np.zeros((2, 96, 128, 3), np.uint8)
    paste(source, Move(0.8, 0.0, 0.0), plain, 0)
    paste(source, Move(0.8, 0.0, 0.0, degrees=1e-7), warped, 0)
    assert np.abs(plain.astype(int) - warped)[1:-1, 1:-1].mean() < 1.0


def test_same_size_is_a_copy() -> None:
    image = textured(3, HEIGHT, WIDTH)
    source = Source(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), (HEIGHT, WIDTH))
    canvas = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    paste(source, Move(1.0, 0.0, 0.0), canvas, 0)
    assert np.array_equal(canvas, image)


def test_shrinking_keeps_the_mean_and_sees_every_pixel() -> None:
    image = np.zeros((256, 256, 3), np.uint8)
    image[::8] = 255  # lines that plain linear interpolation would skip or hit by chance
    source = Source(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), (256, 256))
    canvas = np.zeros((32, 32, 3), np.uint8)
    paste(source, Move(1 / 8, 0.0, 0.0), canvas, 0)
    assert np.abs(canvas.astype(int) - 255 / 8).max() <= 3


def test_out_of_sight_draws_nothing() -> None:
    for move in (Move(1.0, 500.0, 0.0), Move(1.0, 0.0, -500.0), Move(1.0, 500.0, 0.0, degrees=10.0)):
        canvas = np.full((50, 50, 3), 7, np.uint8)
        boxes = paste(rectangle((0, 0, 99, 99), 100, 100), move, canvas, 7)
        assert (canvas == 7).all()
        kept = in_sight(
            boxes, np.array([0]), np.array([[0, 0, 50, 50]], np.float32), min_size=1, min_area=1, min_visible=0.1
        )
        assert len(kept[0]) == len(kept[1]) == 0


def test_small_and_mostly_hidden_boxes_are_dropped() -> None:
    boxes = np.array(
        [[10, 10, 30, 30], [10, 10, 11, 30], [-90, 10, 10, 30], [-10, 10, 10, 30], [20, 20, 23, 23], [5, 5, 5, 9]],
        np.float32,
    )
    found, labels = in_sight(
        boxes, np.arange(6), np.array([[0, 0, 100, 100]], np.float32), min_size=2, min_area=16, min_visible=0.2
    )
    assert labels.tolist() == [0, 3]
    assert found.tolist() == [[10, 10, 30, 30], [0, 10, 10, 30]]


def test_each_box_has_its_own_frame() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10]], np.float32)
    frames = np.array([[0, 0, 5, 20], [2, 3, 20, 20]], np.float32)
    found, _ = in_sight(boxes, np.arange(2), frames, min_size=1, min_area=1, min_visible=0.1)
    assert found.tolist() == [[0, 0, 5, 10], [2, 3, 10, 10]]


@given(
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    scale=st.floats(0.01, 8.0),
    left=st.floats(-3000, 300),
    top=st.floats(-3000, 300),
)
def test_a_cut_stays_within_image_and_room(height: int, width: int, scale: float, left: float, top: float) -> None:
    found = cut(height, width, Move(scale, left, top), (144, 96))
    (a, c, b, d), (x0, y0, x1, y1) = found.window, found.target
    assert 0 <= a < b <= width >> found.level and 0 <= c < d <= height >> found.level
    assert 0 <= x0 <= x1 <= 96 and 0 <= y0 <= y1 <= 144
