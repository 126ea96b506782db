"""What the graph gives becomes detections in image pixels, as the thresholds say."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from eyas.letterbox import place, to_frame
from eyas.runtime.postprocess import select
from eyas.types import Detections, FloatArray, InputSpec, IntArray, Suppression, Thresholds

CLASSES = ("cat", "dog")
SPEC = InputSpec(64, 64, margin=4)
HEIGHT, WIDTH = 240, 480


def run(boxes: FloatArray, scores: FloatArray, thresholds: Thresholds, only: IntArray | None = None) -> Detections:
    """Select from boxes given in image pixels."""
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
