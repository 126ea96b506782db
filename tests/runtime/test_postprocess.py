"""What comes of the network's candidates: thresholds, classes, and every kind of suppression."""

from __future__ import annotations

import math
from typing import get_args

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.greedy import nms as plain_nms

from eyas.boxes import pairwise_iou
from eyas.letterbox import place, to_frame
from eyas.runtime.nms import nms, soft_nms
from eyas.runtime.postprocess import select
from eyas.types import Detections, FloatArray, InputSpec, IntArray, Suppression, Thresholds

CLASSES = ("cat", "dog")
SPEC = InputSpec(64, 64, margin=4)
HEIGHT, WIDTH = 240, 480


def run(boxes: FloatArray, scores: FloatArray, thresholds: Thresholds, only: IntArray | None = None) -> Detections:
    placed = place(HEIGHT, WIDTH, SPEC)
    frame = to_frame(np.asarray(boxes, np.float32).reshape(-1, 4), placed)
    return select(frame, np.asarray(scores, np.float32), placed, HEIGHT, WIDTH, CLASSES, thresholds, only)


def test_boxes_come_back_in_image_pixels_best_first() -> None:
    found = run([[10, 20, 110, 120], [200, 30, 400, 130]], [[0.3, 0.0], [0.1, 0.9]], Thresholds())
    np.testing.assert_allclose(found.boxes, [[200, 30, 400, 130], [10, 20, 110, 120]], atol=1e-2)
    np.testing.assert_allclose(found.scores, [0.9, 0.3])
    assert found.labels.tolist() == [1, 0]
    assert (found.height, found.width, found.classes) == (HEIGHT, WIDTH, CLASSES)
    assert (found.boxes.dtype, found.scores.dtype, found.labels.dtype) == (np.float32, np.float32, np.int64)


def test_one_box_may_be_two_classes_unless_suppression_is_class_agnostic() -> None:
    boxes, scores = [[0, 0, 100, 100]], [[0.6, 0.7]]
    assert run(boxes, scores, Thresholds()).labels.tolist() == [1, 0]
    assert run(boxes, scores, Thresholds(suppression="class_agnostic")).labels.tolist() == [1]


def test_soft_suppression_keeps_the_neighbour_with_less_score() -> None:
    boxes = [[0, 0, 100, 100], [5, 0, 105, 100]]
    hard = run(boxes, [[0.9, 0], [0.8, 0]], Thresholds())
    soft = run(boxes, [[0.9, 0], [0.8, 0]], Thresholds(suppression="soft", confidence=0.1))
    assert len(hard) == 1
    assert len(soft) == 2 and 0.1 < soft.scores[1] < 0.4


@pytest.mark.parametrize("most", [1, 7, 40, 300])
@pytest.mark.parametrize("only", [None, np.array([1])])
def test_without_suppression_they_are_the_best_pairs(most: int, only: IntArray | None) -> None:
    rng = np.random.default_rng(most)
    boxes = np.array([10, 10, 110, 110], np.float32) + rng.integers(0, 9, (60, 4)).astype(np.float32)
    scores = (rng.integers(0, 20, (60, 2)) / 20).astype(np.float32)  # with many ties
    found = run(boxes, scores, Thresholds(confidence=0.3, max_detections=most, suppression="none"), only)
    wanted = range(2) if only is None else only.tolist()
    pairs = [(row, label) for row in range(60) for label in wanted if scores[row, label] >= np.float32(0.3)]
    best = sorted(pairs, key=lambda pair: -scores[pair])[:most]  # stable: equal scores in the graph's order
    assert len(best) == min(most, len(pairs))
    np.testing.assert_array_equal(found.scores, [scores[pair] for pair in best])
    assert found.labels.tolist() == [label for _, label in best]
    np.testing.assert_allclose(found.boxes, boxes[[row for row, _ in best]], atol=1e-3)


def test_candidates_are_a_limit_without_suppression_too() -> None:
    found = run([[0, 0, 9, 9]] * 4, [[0.5, 0.9]] * 4, Thresholds(candidates=3, suppression="none"))
    assert found.labels.tolist() == [1, 1, 1]


def test_the_threshold_itself_passes() -> None:
    found = run([[0, 0, 9, 9], [50, 0, 60, 9]], [[0.25, 0], [0.2499, 0]], Thresholds(confidence=0.25))
    assert len(found) == 1


def test_the_best_candidates_enter_and_ties_go_to_the_lower_index() -> None:
    boxes = [[40 * i, 0, 40 * i + 20, 20] for i in range(6)]
    scores = [[0.5, 0], [0.9, 0], [0.5, 0], [0.5, 0], [0.8, 0], [0.5, 0]]
    found = run(boxes, scores, Thresholds(candidates=4))
    np.testing.assert_allclose(found.boxes[:, 0], [40, 160, 0, 80], atol=1e-2)


def test_as_many_as_allowed() -> None:
    boxes = [[40 * i, 0, 40 * i + 20, 20] for i in range(6)]
    assert len(run(boxes, [[0.9, 0]] * 6, Thresholds(max_detections=3))) == 3


def test_only_the_wanted_labels() -> None:
    found = run([[0, 0, 100, 100]], [[0.6, 0.7]], Thresholds(), only=np.array([0]))
    assert found.labels.tolist() == [0]
    assert len(run([[0, 0, 100, 100]], [[0.6, 0.7]], Thresholds(), only=np.array([], np.int64))) == 0


def test_boxes_are_clipped_and_those_in_the_padding_dropped() -> None:
    found = run([[-30, -30, 50, 50], [0, -90, 50, -10]], [[0.9, 0], [0.8, 0]], Thresholds())
    np.testing.assert_allclose(found.boxes, [[0, 0, 50, 50]], atol=1e-2)


def test_boxes_that_are_not_finite_are_dropped() -> None:
    found = run([[0, 0, np.nan, 50], [0, 0, np.inf, 9], [0, 0, 50, 50]], [[0.9, 0], [0.8, 0], [0.7, 0]], Thresholds())
    np.testing.assert_allclose(found.scores, [0.7])


@pytest.mark.parametrize("suppression", get_args(Suppression))
def test_nothing_found(suppression: str) -> None:
    found = run([[0, 0, 50, 50]], [[0.1, 0.2]], Thresholds(suppression=suppression))  # type: ignore[arg-type]
    assert len(found) == 0 and found.boxes.shape == (0, 4)


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
