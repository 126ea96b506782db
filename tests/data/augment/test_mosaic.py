"""Mosaic, single images and mixup: every box that comes out lies around what it names, and nothing is lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.scenes import drawn, extent, rectangle

from eyas.data.augment.config import AugmentPolicy
from eyas.data.augment.mosaic import alone, mosaic
from eyas.data.augment.plan import Mix, Piece, Plan
from eyas.data.loading.source import Source

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


def test_a_image_without_boxes_and_a_single_pixel_are_fine() -> None:
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
