"""The worst images come first, and images without an error not at all."""

from __future__ import annotations

from tests.evaluation.cases import found_of, truth_of

from eyas.evaluation.hardest import WorstImage, worst_images
from eyas.evaluation.matching import match_predictions

A = (0.0, 0.0, 100.0, 100.0)
B = (300.0, 300.0, 400.0, 400.0)


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
