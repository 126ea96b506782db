"""Matching, the confusion matrix, the errors of an image and the worst ones, on cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from tests.evaluation.cases import found_of, random_case, truth_of

from eyas.evaluation.coco import RECALL_POINTS, evaluate_predictions
from eyas.evaluation.hardest import WorstImage, worst_images
from eyas.evaluation.matching import confusion_matrix, errors_per_image, greedy_match, match_predictions
from eyas.evaluation.predictions import Predictions

CAT, DOG, BACKGROUND = 0, 1, 2
A = (0.0, 0.0, 100.0, 100.0)
NEAR_A = (0.0, 0.0, 100.0, 80.0)  # IoU 0.8 with A
HALF_A = (0.0, 0.0, 100.0, 40.0)  # IoU 0.4 with A
B = (300.0, 300.0, 400.0, 400.0)
C = (500.0, 100.0, 600.0, 200.0)


def test_greedy_match_takes_the_best_free_column_in_row_order() -> None:
    overlap = np.array([[0.6, 0.9], [0.7, 0.95], [0.8, 0.0], [0.49, 0.2]])
    # Row 0 takes column 1; row 1 wanted it too and gets column 0; nothing is left for row 2.
    assert greedy_match(overlap, 0.5).tolist() == [1, 0, -1, -1]
    assert greedy_match(np.zeros((2, 0)), 0.5).tolist() == [-1, -1]
    assert greedy_match(np.array([[0.5]]), 0.5).tolist() == [0]  # the least overlap is enough


def test_better_score_takes_the_object_whatever_the_row_order() -> None:
    index = truth_of([(0, CAT, A)], 1)
    matches = match_predictions(index, found_of([(0, CAT, A, 0.3), (0, CAT, NEAR_A, 0.8)]))
    assert matches.truth.tolist() == [-1, 0]  # the second claim of one object is false, though it fits better


def test_class_and_image_must_agree() -> None:
    index = truth_of([(0, CAT, A), (1, DOG, A)], 2)
    matches = match_predictions(
        index, found_of([(0, DOG, A, 0.9), (0, CAT, HALF_A, 0.9), (1, DOG, NEAR_A, 0.9), (1, CAT, A, 0.9)])
    )
    assert matches.truth.tolist() == [-1, -1, 1, -1] and not matches.ignored.any()


def test_detections_inside_a_crowd_are_ignored_but_objects_come_first() -> None:
    index = truth_of([(0, CAT, (0.0, 0.0, 400.0, 400.0)), (0, CAT, A)], 1, crowd=[True, False])
    found = found_of([(0, CAT, A, 0.9), (0, CAT, B, 0.8), (0, DOG, B, 0.7), (0, CAT, C, 0.6)])
    matches = match_predictions(index, found)
    assert matches.truth.tolist() == [1, -1, -1, -1]
    assert matches.ignored.tolist() == [False, True, False, False]
    matrix = confusion_matrix(index, found, matches, 0.25)
    assert matrix.tolist() == [[1, 0, 0], [0, 0, 0], [1, 1, 0]]
    missed, false = errors_per_image(index, found, matches, 0.25)
    assert missed.tolist() == [0] and false.tolist() == [2]


@pytest.mark.parametrize("seed", range(3))
def test_recall_agrees_with_the_metric_engine(seed: int) -> None:
    index, found = random_case(seed)
    found = found[found.images != 3]  # that image has more detections than COCO reads
    matches = match_predictions(index, found)
    hit = np.bincount(found.labels[matches.truth >= 0], minlength=len(index.classes))
    boxes = np.bincount(index.labels[~index.crowd], minlength=len(index.classes))
    recall = hit[:-1] / boxes[:-1]
    # COCO's precision is above 0 at exactly those recall points that the recall at IoU .50 reaches.
    precision = evaluate_predictions(index, found).precision50[:-1]
    reached = (recall[:, None] >= RECALL_POINTS) & (recall[:, None] > 0)
    assert np.array_equal(precision > 0, reached)
    assert len(set(matches.truth[matches.truth >= 0].tolist())) == (matches.truth >= 0).sum()  # one claim an object


def test_dropping_low_scores_leaves_the_other_matches_as_they_are() -> None:
    index, found = random_case(4)
    matches = match_predictions(index, found)
    kept = found.scores >= 0.5
    again = match_predictions(index, found[kept])
    assert np.array_equal(matches.truth[kept], again.truth) and np.array_equal(matches.ignored[kept], again.ignored)


def test_confusion_matrix_by_hand() -> None:
    index = truth_of([(0, CAT, A), (0, DOG, B), (1, CAT, A), (1, DOG, C), (2, DOG, A)], 4)
    found = found_of(
        [
            (0, CAT, NEAR_A, 0.9),  # right
            (0, CAT, B, 0.8),  # the dog taken for a cat
            (1, CAT, A, 0.1),  # below the threshold: the cat is missed
            (1, DOG, C, 0.7),  # right
            (1, DOG, C, 0.6),  # a second claim: false
            (2, CAT, HALF_A, 0.9),  # too loose: false, and the dog is missed
            (3, DOG, A, 0.5),  # false, in an image without objects
        ]
    )
    matches = match_predictions(index, found)
    matrix = confusion_matrix(index, found, matches, 0.25)
    assert matrix.dtype == np.int64
    assert matrix.tolist() == [
        [1, 0, 1],  # cats: one right, one missed
        [1, 1, 1],  # dogs: one taken for a cat, one right, one missed
        [1, 2, 0],  # background: one false cat, two false dogs
    ]
    missed, false = errors_per_image(index, found, matches, 0.25)
    assert missed.tolist() == [1, 1, 1, 0]
    assert false.tolist() == [1, 1, 1, 1]


def test_right_class_wins_over_a_better_scored_wrong_one() -> None:
    index = truth_of([(0, CAT, A)], 1)
    found = found_of([(0, DOG, A, 0.9), (0, CAT, NEAR_A, 0.4)])
    matches = match_predictions(index, found)
    assert confusion_matrix(index, found, matches).tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]
    # Above the right one's score the object is free, and the wrong one takes it.
    assert confusion_matrix(index, found, matches, 0.5).tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_confusion_matrix_counts_every_object_and_prediction_once() -> None:
    index, found = random_case(5)
    matches = match_predictions(index, found)
    matrix = confusion_matrix(index, found, matches, 0.3)
    objects = np.bincount(index.labels[~index.crowd], minlength=len(index.classes))
    assert np.array_equal(matrix[:-1].sum(axis=1), objects)
    counted = (found.scores >= np.float32(0.3)) & ~matches.ignored
    assert np.array_equal(matrix[:, :-1].sum(axis=0), np.bincount(found.labels[counted], minlength=len(index.classes)))
    missed, false = errors_per_image(index, found, matches, 0.3)
    right = np.trace(matrix)
    assert missed.sum() == objects.sum() - right and false.sum() == counted.sum() - right


def test_no_predictions_means_everything_is_missed() -> None:
    index = truth_of([(0, CAT, A), (1, DOG, B)], 3)
    matches = match_predictions(index, Predictions.empty())
    assert confusion_matrix(index, Predictions.empty(), matches).tolist() == [[0, 0, 1], [0, 0, 1], [0, 0, 0]]
    missed, false = errors_per_image(index, Predictions.empty(), matches)
    assert missed.tolist() == [1, 1, 0] and false.tolist() == [0, 0, 0]


def test_order_limit_and_threshold() -> None:
    index = truth_of([(0, 0, A), (1, 0, A), (1, 0, B), (2, 0, A), (3, 1, A)], 5)
    found = found_of([(0, 0, A, 0.9), (2, 0, B, 0.9), (2, 1, B, 0.9), (3, 0, A, 0.9), (4, 0, A, 0.1)])
    matches = match_predictions(index, found)
    expected = (
        WorstImage(2, missed=1, false=2),
        WorstImage(1, missed=2, false=0),
        WorstImage(3, missed=1, false=1),  # as many errors as image 1, which comes first
    )
    assert worst_images(index, found, matches, 0.25) == expected
    assert worst_images(index, found, matches, 0.25, limit=1) == expected[:1]
    assert worst_images(index, found, matches, 0.05)[-1] == WorstImage(4, missed=0, false=1)
