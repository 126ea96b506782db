"""Geometry of boxes: conversions that undo each other, areas, clipping, IoU, and the plain suppression."""

from __future__ import annotations

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyas import boxes
from eyas.types import FloatArray

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
    assert boxes.nms(three, scores, same, 0.5, 10).tolist() == [1, 2]
    assert boxes.nms(three, scores, other, 0.5, 10).tolist() == [1, 2, 0]
    assert boxes.nms(three, scores, same, 0.9, 10).tolist() == [1, 2, 0]
    assert boxes.nms(three, scores, same, 0.9, 2).tolist() == [1, 2]
    assert boxes.nms(three, np.full(3, 0.5, np.float32), same, 0.5, 10).tolist() == [0, 2]
    assert boxes.nms(three[:0], scores[:0], same[:0], 0.5, 10).tolist() == []


def test_nms_of_an_overlap_of_just_the_threshold_keeps_both() -> None:
    two = np.array([[0, 0, 10, 10], [0, 0, 10, 5]], np.float32)  # IoU is exactly one half
    scores = np.array([0.9, 0.8], np.float32)
    assert len(boxes.nms(two, scores, np.zeros(2, np.int64), 0.5, 10)) == 2
    assert len(boxes.nms(two, scores, np.zeros(2, np.int64), 0.499, 10)) == 1
