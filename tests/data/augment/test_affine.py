"""Boxes follow the pixels: rectangles that are moved, in mosaics and mixed lie where their boxes say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.scenes import drawn, extent, paste, rectangle, textured

from eyas.data.augment.affine import Move, cut, in_sight
from eyas.data.augment.config import AugmentPolicy
from eyas.data.augment.mosaic import alone, mosaic
from eyas.data.augment.plan import Mix, Piece, Plan
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


COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255))
POLICY = AugmentPolicy(scale=(0.5, 1.5), translate=0.2)


def sources(rng: np.random.Generator) -> list[Source]:
    """Return four images of different shapes with a rectangle of a colour of its own, which is also its label."""
    made = []
    for label, colour in enumerate(COLOURS):
        height, width = (int(v) for v in rng.integers(60, 300, 2))
        x, y = int(rng.integers(0, width // 2)), int(rng.integers(0, height // 2))
        one = rectangle((x, y, x + width // 2, y + height // 2), height, width, colour)
        made.append(Source(one.image, one.boxes, np.array([label]), one.size))
    return made


def shown(
    pieces: tuple[Piece[Source], ...], canvas: np.ndarray, policy: AugmentPolicy, mix: Mix[Source] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw pieces on a canvas and return boxes and labels."""
    return drawn(Plan(pieces, canvas.shape[:2], mix, None, False), canvas, policy)


def mask_of(canvas: np.ndarray, label: int) -> np.ndarray:
    """Return where a canvas shows the colour of a label."""
    return np.asarray(((canvas > 127) == (np.array(COLOURS[label]) > 127)).all(axis=2))


@given(seed=st.integers(0, 10_000))
def test_mosaic_boxes_lie_around_their_rectangles(seed: int) -> None:
    rng = np.random.default_rng(seed)
    canvas = np.full((192, 256, 3), 99, np.uint8)
    boxes, labels = shown(mosaic(sources(rng), canvas.shape[:2], POLICY, rng), canvas, POLICY)
    assert boxes.dtype == np.float32
    for box, label in zip(boxes, labels, strict=True):
        assert np.abs(extent(mask_of(canvas, label)) - box).max() <= 1.5
    for label in set(range(4)) - set(labels.tolist()):  # dropped: hardly anything of it is to be seen
        whole = mask_of(canvas, label).sum()
        assert whole < 0.35 * canvas.shape[0] * canvas.shape[1]


@given(seed=st.integers(0, 10_000), degrees=st.sampled_from([0.0, 15.0]))
def test_single_image_boxes_lie_around_their_rectangles(seed: int, degrees: float) -> None:
    rng = np.random.default_rng(seed)
    source = sources(rng)[0]
    canvas = np.full((192, 256, 3), 99, np.uint8)
    policy = AugmentPolicy(scale=(0.5, 1.5), translate=0.2, degrees=degrees, min_visible=0.9)
    for box in shown((alone(source, canvas.shape[:2], policy, rng),), canvas, policy)[0]:
        inside = box[0] > 0 and box[1] > 0 and box[2] < 256 and box[3] < 192
        if inside or not degrees:
            assert np.abs(extent(mask_of(canvas, 0)) - box).max() <= 1.5


def test_mosaic_shows_four_images_that_fill_most_of_the_canvas() -> None:
    seen, filled = set(), []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        grey = [
            Source(np.full((200, 260, 3), 40 * k + 40, np.uint8), np.zeros((0, 4), np.float32), np.zeros(0), (200, 260))
            for k in range(4)
        ]
        canvas = np.zeros((256, 256, 3), np.uint8)
        shown(mosaic(grey, (256, 256), AugmentPolicy(), rng), canvas, AugmentPolicy())
        values = np.unique(canvas[..., 0])
        assert set(values) - {0} == {40, 80, 120, 160}
        seen.add(tuple(int(canvas[y, x, 0]) for y, x in ((60, 60), (60, 196), (196, 60), (196, 196))))
        filled.append((canvas > 0).mean())
    assert len(seen) > 10  # which image goes where is drawn
    assert np.mean(filled) > 0.85


def test_mixup_blends_and_keeps_both_truths() -> None:
    policy = AugmentPolicy(scale=(1.0, 1.0), translate=0.0)
    rng = np.random.default_rng(0)
    pieces = []
    for value, box, label in ((200, [0, 0, 16, 16], 1), (100, [8, 8, 32, 32], 2)):
        image = np.full((32, 32, 3), value, np.uint8)
        source = Source(image, np.array([box], np.float32), np.array([label]), (32, 32))
        pieces.append(alone(source, (32, 32), policy, rng))
    canvas = np.zeros((32, 32, 3), np.uint8)
    boxes, labels = shown((pieces[0],), canvas, policy, Mix(pieces[1], 0.45))
    assert (canvas == 145).all()
    assert boxes.tolist() == [[0, 0, 16, 16], [8, 8, 32, 32]]
    assert labels.tolist() == [1, 2]


def test_an_image_without_boxes_and_a_single_pixel_are_fine() -> None:
    empty = Source(np.full((1, 1, 3), 50, np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64), (1, 1))
    canvas = np.zeros((64, 64, 3), np.uint8)
    boxes, labels = shown(mosaic([empty] * 4, (64, 64), POLICY, np.random.default_rng(0)), canvas, POLICY)
    assert boxes.shape == (0, 4)
    assert labels.shape == (0,)
    assert canvas.any()


@pytest.mark.parametrize("shape", [(2, 900), (900, 2)])
def test_extreme_shapes(shape: tuple[int, int]) -> None:
    strip = rectangle((0, 0, shape[1], shape[0]), *shape)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        canvas = np.zeros((64, 64, 3), np.uint8)
        shown(mosaic([strip] * 4, (64, 64), POLICY, rng), canvas, POLICY)
        boxes, _ = shown((alone(strip, (64, 64), POLICY, rng),), canvas, POLICY)
        assert (boxes >= 0).all() and (boxes <= 64).all()
