"""The fast suppression gives the plain one's answer, ties and degenerate boxes included."""

from __future__ import annotations

import math

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyas.boxes import nms as plain_nms
from eyas.boxes import pairwise_iou
from eyas.runtime.nms import nms, soft_nms
from eyas.types import FloatArray, IntArray

Case = tuple[FloatArray, FloatArray, IntArray]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw boxes on a coarse or a fine grid (coarse: many exact ties of IoU and score), some of them inverted."""
    num = draw(st.integers(0, 40))
    if draw(st.booleans()):
        sides = arrays.arrays(np.float32, (num, 4), elements=st.integers(-8, 24).map(float))
    else:
        sides = arrays.arrays(np.float32, (num, 4), elements=st.floats(-2048, 2048, width=32))
    scores = arrays.arrays(np.float32, num, elements=st.integers(0, 5).map(lambda level: level / 5))
    labels = arrays.arrays(np.int64, num, elements=st.integers(0, 3))
    return draw(sides), draw(scores), draw(labels)


@settings(max_examples=120, deadline=None)
@given(cases(), st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 0.7, 1.0]), st.integers(1, 50))
def test_equal_to_the_plain_reference(case: Case, iou: float, limit: int) -> None:
    np.testing.assert_array_equal(nms(*case, iou, limit), plain_nms(*case, iou, limit))


@pytest.mark.parametrize("classes", [1, 80])
@pytest.mark.parametrize("num", [2, 50, 1000])
def test_equal_to_the_plain_reference_on_crowds(num: int, classes: int) -> None:
    rng = np.random.default_rng(num + classes)
    centers = rng.uniform(0, 640, (max(1, num // 12), 2))[rng.integers(0, max(1, num // 12), num)]
    centers = centers + rng.normal(0, 6, (num, 2))
    sizes = rng.uniform(30, 90, (num, 2))
    boxes = np.concatenate([centers - sizes / 2, centers + sizes / 2], axis=1).astype(np.float32)
    scores = rng.random(num).astype(np.float32)
    labels = rng.integers(0, classes, num)
    kept = nms(boxes, scores, labels, 0.5, 300)
    np.testing.assert_array_equal(kept, plain_nms(boxes, scores, labels, 0.5, 300))
    assert num == 2 or len(kept) < num


def test_what_survives_does_not_overlap_and_what_falls_has_a_better_neighbour() -> None:
    rng = np.random.default_rng(3)
    corner = rng.uniform(0, 100, (200, 2)).astype(np.float32)
    boxes = np.concatenate([corner, corner + 40], axis=1)
    scores = rng.random(200).astype(np.float32)
    kept = nms(boxes, scores, np.zeros(200, np.int64), 0.4, 200)
    overlap = pairwise_iou(boxes, boxes)
    among = overlap[np.ix_(kept, kept)]
    assert (among[~np.eye(len(kept), dtype=bool)] <= 0.4).all()
    for fallen in set(range(200)) - set(kept.tolist()):
        assert any(overlap[fallen, k] > 0.4 and scores[k] >= scores[fallen] for k in kept)


def test_a_chain_keeps_its_ends() -> None:
    # The middle one falls to the first, so it can't drop the third.
    boxes = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]], np.float32)
    kept = nms(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.zeros(3, np.int64), 0.3, 10)
    assert kept.tolist() == [0, 2]


def test_no_boxes_and_one_box() -> None:
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
    assert len(nms(*none, 0.5, 10)) == 0
    assert len(soft_nms(*none, 0.5, 0.1, 10)[0]) == 0
    one = np.array([[0, 0, 1, 1]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int64)
    assert nms(*one, 0.5, 10).tolist() == [0]


def test_soft_lowers_by_the_paper_s_factor() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 10]], np.float32)
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    kept, values = soft_nms(boxes, scores, np.array([0, 0, 1]), 0.5, 0.01, 10)
    # IoU of the first two is 0.5; the third is of another class.
    assert kept.tolist() == [0, 2, 1]
    np.testing.assert_allclose(values, [0.9, 0.7, 0.8 * math.exp(-0.25 / 0.5)], rtol=1e-6)


def test_soft_drops_what_falls_below_the_threshold_and_stops_at_the_limit() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [50, 0, 60, 10]], np.float32)
    scores = np.array([0.9, 0.8, 0.5], np.float32)
    labels = np.zeros(3, np.int64)
    assert soft_nms(boxes, scores, labels, 0.5, 0.2, 10)[0].tolist() == [0, 2]
    assert soft_nms(boxes, scores, labels, 0.5, 0.2, 1)[0].tolist() == [0]
