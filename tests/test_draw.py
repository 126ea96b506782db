"""Drawing: boxes where they belong, labels inside the frame, colours apart."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyas.draw import class_colour, cut_text, draw_boxes, grid, name_colour, text_width


def black(height: int = 120, width: int = 160) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


def test_image_is_not_changed() -> None:
    image = black()
    drawn = draw_boxes(image, np.array([[10, 20, 60, 80]], np.float32), ["cat"])
    assert image.max() == 0
    assert drawn.shape == image.shape
    assert drawn.max() > 0


def test_box_covers_its_outermost_pixels() -> None:
    drawn = draw_boxes(black(), np.array([[10, 20, 60, 80]], np.float32), [""], colours=[(255, 0, 0)])
    rows, columns = np.nonzero(drawn[..., 0] == 255)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 79, 10, 59)
    assert drawn[50, 30].max() == 0


def test_line_grows_with_the_image() -> None:
    def width_of(side: int) -> int:
        drawn = draw_boxes(black(side, side), np.array([[0.2, 0.2, 0.8, 0.8]], np.float32) * side, [""])
        return int((drawn[side // 2, : side // 2] > 0).any(axis=1).sum())

    assert width_of(200) < width_of(1200) < width_of(3000)


@given(
    st.lists(st.lists(st.floats(-500, 700, width=32), min_size=4, max_size=4), max_size=8),
    st.integers(1, 90),
    st.integers(1, 90),
    st.text(max_size=60),
)
@settings(max_examples=60)
def test_anything_can_be_drawn(boxes: list[list[float]], height: int, width: int, text: str) -> None:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    scores = np.full(len(array), 0.5, np.float32)
    assert draw_boxes(black(height, width), array, [text] * len(array), scores).shape == (height, width, 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_boxes_that_are_nowhere_are_left_out(bad: float) -> None:
    boxes = np.array([[0, 0, bad, 10], [200, 0, 300, 50], [-50, -50, -1, -1]], np.float32)
    assert draw_boxes(black(), boxes, ["a", "b", "c"]).max() == 0


@pytest.mark.parametrize("box", [[0, 0, 160, 120], [150, 0, 160, 9], [0, 110, 9, 120], [150, 112, 160, 120]])
def test_label_stays_inside_the_frame(box: list[float]) -> None:
    """The filled label is as large in a corner as in the middle."""
    colour = (0, 255, 0)

    def label_pixels(where: list[float]) -> int:
        with_text = draw_boxes(black(), np.array([where], np.float32), ["name"], colours=[colour])
        return int((with_text == colour).all(axis=2).sum())

    def outline_pixels(where: list[float]) -> int:
        without = draw_boxes(black(), np.array([where], np.float32), [""], colours=[colour])
        return int((without == colour).all(axis=2).sum())

    middle = [60.0, 60.0, 70.0, 69.0]
    expected = label_pixels(middle) - outline_pixels(middle)
    assert label_pixels(box) - outline_pixels(box) >= 0.75 * expected


def test_labels_of_one_place_do_not_cover_each_other() -> None:
    boxes = np.array([[40, 40, 120, 100], [40, 40, 119, 99]], np.float32)
    drawn = draw_boxes(black(), boxes, ["one", "two"], colours=[(255, 0, 0), (0, 0, 255)])
    red, blue = ((drawn == colour).all(axis=2).sum() for colour in ((255, 0, 0), (0, 0, 255)))
    assert red > 200
    assert blue > 200


def test_colours_are_stable_and_apart() -> None:
    colours = [class_colour(i) for i in range(20)]
    assert colours == [class_colour(i) for i in range(20)]
    for first, second in itertools.combinations(colours, 2):
        assert np.abs(np.subtract(first, second)).sum() > 40
    assert len({class_colour(i) for i in range(200)}) > 190
    assert name_colour("cat") == name_colour("cat") != name_colour("dog")


def test_cut_text_fits() -> None:
    long = "a very long class name indeed"
    assert cut_text(long, 14, 1000) == long
    cut = cut_text(long, 14, 80)
    assert cut.endswith("..")
    assert text_width(cut, 14) <= 80
    assert cut_text(long, 14, 1) == ""


def test_grid_places_tiles_of_any_size() -> None:
    tiles = [np.full((10 + i, 20 - i, 3), 50 * (i + 1), np.uint8) for i in range(3)]
    sheet = grid(tiles, 2, gap=4)
    assert sheet.shape == (2 * 12 + 3 * 4, 2 * 20 + 3 * 4, 3)
    for i, tile in enumerate(tiles):
        assert (sheet == 50 * (i + 1)).all(axis=2).sum() == tile.shape[0] * tile.shape[1]
    assert grid(tiles, 0).shape[0] < grid(tiles, 1).shape[0]
    assert grid(tiles, 3, captions=["a", "b", "c"]).shape[0] > grid(tiles, 3).shape[0]
    assert grid([], 0).size > 0
