"""Boxes, and the frame that an image is fitted into."""

from __future__ import annotations

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.greedy import nms

from eyas import boxes, letterbox
from eyas.types import FloatArray, InputSpec

IMAGE = st.floats(0, 1024, width=16)


@st.composite
def upright(draw: st.DrawFn, most: int = 8) -> FloatArray:
    """Draw [N, 4] xyxy boxes that are not inverted; a box may be empty."""
    num = draw(st.integers(1, most))
    sides = draw(arrays.arrays(np.float32, (num, 4), elements=IMAGE))
    return np.concatenate([np.minimum(sides[:, :2], sides[:, 2:]), np.maximum(sides[:, :2], sides[:, 2:])], axis=1)


@given(upright())
def test_conversions_undo_each_other(xyxy: FloatArray) -> None:
    np.testing.assert_allclose(boxes.xywh_to_xyxy(boxes.xyxy_to_xywh(xyxy)), xyxy, atol=1e-3)
    np.testing.assert_allclose(boxes.cxcywh_to_xyxy(boxes.xyxy_to_cxcywh(xyxy)), xyxy, atol=1e-3)


def test_conversions_by_hand() -> None:
    box = np.array([[10, 20, 30, 60]], np.float32)
    assert boxes.xyxy_to_xywh(box).tolist() == [[10, 20, 20, 40]]
    assert boxes.xyxy_to_cxcywh(box).tolist() == [[20, 40, 20, 40]]
    assert box.tolist() == [[10, 20, 30, 60]]  # what was given stays as it is
    assert boxes.xyxy_to_xywh(np.zeros((2, 3, 4), np.float32)).shape == (2, 3, 4)


@pytest.mark.parametrize(
    "convert", [boxes.xywh_to_xyxy, boxes.xyxy_to_xywh, boxes.cxcywh_to_xyxy, boxes.xyxy_to_cxcywh]
)
def test_conversions_keep_the_type_and_take_no_boxes(convert: object) -> None:
    out = convert(np.zeros((0, 4), np.float32))  # type: ignore[operator]
    assert out.shape == (0, 4) and out.dtype == np.float32


def test_area() -> None:
    given_boxes = np.array([[0, 0, 4, 5], [4, 5, 0, 0], [4, 0, 0, 5], [1, 1, 1, 9]], np.float32)
    assert boxes.area(given_boxes).tolist() == [20, 0, 0, 0]


def test_clip() -> None:
    given_boxes = np.array([[-5, -6, 300, 400], [10, 20, 30, 40]], np.float32)
    assert boxes.clip(given_boxes, height=100, width=200).tolist() == [[0, 0, 200, 100], [10, 20, 30, 40]]


@given(upright(), upright())
def test_iou_is_symmetric_bounded_and_one_with_itself(first: FloatArray, second: FloatArray) -> None:
    iou = boxes.pairwise_iou(first, second)
    assert iou.shape == (len(first), len(second)) and iou.dtype == np.float32
    assert (iou >= 0).all() and (iou <= 1 + 1e-5).all()
    np.testing.assert_allclose(iou, boxes.pairwise_iou(second, first).T, atol=1e-6)
    own = np.diagonal(boxes.pairwise_iou(first, first))
    np.testing.assert_allclose(own, boxes.area(first) > 1e-6, atol=1e-3)


def test_iou_by_hand() -> None:
    first = np.array([[0, 0, 2, 2]], np.float32)
    second = np.array([[1, 0, 3, 2], [1, 1, 3, 3], [2, 0, 4, 2], [0, 0, 2, 2], [1, 1, 1, 1]], np.float32)
    np.testing.assert_allclose(boxes.pairwise_iou(first, second), [[2 / 6, 1 / 7, 0, 1, 0]], atol=1e-6)


def test_nms_by_hand() -> None:
    three = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10]], np.float32)
    scores = np.array([0.5, 0.9, 0.7], np.float32)
    same, other = np.zeros(3, np.int64), np.array([0, 1, 0])
    assert nms(three, scores, same, 0.5, 10).tolist() == [1, 2]
    assert nms(three, scores, other, 0.5, 10).tolist() == [1, 2, 0]
    assert nms(three, scores, same, 0.9, 10).tolist() == [1, 2, 0]
    assert nms(three, scores, same, 0.9, 2).tolist() == [1, 2]
    assert nms(three, np.full(3, 0.5, np.float32), same, 0.5, 10).tolist() == [0, 2]
    assert nms(three[:0], scores[:0], same[:0], 0.5, 10).tolist() == []


def test_nms_of_an_overlap_of_just_the_threshold_keeps_both() -> None:
    two = np.array([[0, 0, 10, 10], [0, 0, 10, 5]], np.float32)  # IoU is exactly one half
    scores = np.array([0.9, 0.8], np.float32)
    assert len(nms(two, scores, np.zeros(2, np.int64), 0.5, 10)) == 2
    assert len(nms(two, scores, np.zeros(2, np.int64), 0.499, 10)) == 1


sides = st.integers(1, 900)

specs = st.builds(
    InputSpec,
    height=st.sampled_from([32, 64, 96, 160]),
    width=st.sampled_from([32, 64, 128]),
    margin=st.sampled_from([0, 4, 7]),
    pad_mode=st.sampled_from(["center", "bottom_right"]),
)


@given(height=sides, width=sides, spec=specs)
def test_the_image_fits_and_keeps_its_shape(height: int, width: int, spec: InputSpec) -> None:
    placed = letterbox.place(height, width, spec)
    assert 1 <= placed.width <= spec.width - spec.margin
    assert 1 <= placed.height <= spec.height - spec.margin
    assert placed.left >= 0 and placed.left + placed.width <= spec.width
    assert placed.top >= 0 and placed.top + placed.height <= spec.height
    assert placed.width == spec.width - spec.margin or placed.height == spec.height - spec.margin
    if min(placed.width, placed.height) > 1:  # else one side is less than a pixel and rounded up
        assert abs(placed.width / width * height - placed.height) <= 1 + height / width
    if spec.pad_mode == "bottom_right":
        assert (placed.left, placed.top) == (0, 0)
    else:
        assert abs(placed.left - (spec.width - placed.width) / 2) < 1
        assert abs(placed.top - (spec.height - placed.height) / 2) < 1


@given(height=sides, width=sides, spec=specs, box=st.tuples(*[st.floats(0, 1, width=32)] * 4))
def test_boxes_there_and_back(height: int, width: int, spec: InputSpec, box: tuple[float, ...]) -> None:
    boxes = np.array([box], np.float32) * np.array([width, height] * 2, np.float32)
    placed = letterbox.place(height, width, spec)
    framed = letterbox.to_frame(boxes, placed)
    assert framed.dtype == np.float32
    assert (framed >= -1e-3).all() and (framed <= max(spec.height, spec.width) + 1e-3).all()
    back = letterbox.from_frame(framed, placed)
    assert np.abs(back - boxes).max() <= 1e-3 * max(height, width, 10)


@given(
    height=st.integers(40, 300),
    width=st.integers(40, 300),
    spec=specs,
    corner=st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)),
)
def test_boxes_follow_pixels(height: int, width: int, spec: InputSpec, corner: tuple[float, float]) -> None:
    x0, y0 = int(corner[0] * width), int(corner[1] * height)
    x1, y1 = x0 + width // 2, y0 + height // 2
    image = np.zeros((height, width, 3), np.uint8)
    image[y0:y1, x0:x1] = 255
    out, placed = letterbox.letterbox(image, spec)
    mask = out[..., 0] > 127
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    box = letterbox.to_frame(np.array([[x0, y0, x1, y1]], np.float32), placed)[0]
    assert np.abs(found - box).max() <= 1.5


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (640, 640), (60, 60), (3000, 20)])
@pytest.mark.parametrize("pad_mode", ["center", "bottom_right"])
def test_everything_outside_the_image_is_padding(shape: tuple[int, int], pad_mode: str) -> None:
    spec = InputSpec(64, 96, margin=4, pad_mode=pad_mode, pad_value=77)  # type: ignore[arg-type]
    out, placed = letterbox.letterbox(np.full((*shape, 3), 200, np.uint8), spec)
    assert out.shape == (64, 96, 3)
    inside = np.zeros((64, 96), bool)
    inside[placed.top : placed.top + placed.height, placed.left : placed.left + placed.width] = True
    assert (out[inside] == 200).all()
    assert (out[~inside] == 77).all()


def test_it_writes_into_a_slot_of_a_batch() -> None:
    image = np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8)
    spec = InputSpec(64, 64)
    batch = np.full((3, 64, 64, 3), 9, np.uint8)
    out, placed = letterbox.letterbox(image, spec, out=batch[1])
    alone, same = letterbox.letterbox(image, spec)
    assert placed == same
    assert np.shares_memory(out, batch)
    assert np.array_equal(batch[1], alone)
    assert (batch[0] == 9).all() and (batch[2] == 9).all()


def test_an_image_of_the_very_size_is_copied() -> None:
    image = np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)
    out, placed = letterbox.letterbox(image, InputSpec(64, 64, margin=4))
    assert (placed.scale_x, placed.scale_y, placed.left, placed.top) == (1.0, 1.0, 2, 2)
    assert np.array_equal(out[2:62, 2:62], image)
