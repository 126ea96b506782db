"""Columns of predictions: what goes in comes out, in any order and from any number of processes."""

from __future__ import annotations

import numpy as np
from tests.evaluation.cases import random_case

from eyas.evaluation.coco import evaluate_predictions
from eyas.evaluation.predictions import Predictions, PredictionsBuilder
from eyas.types import Detections

CLASSES = ("cat", "dog")


def detections(count: int, label: int = 0) -> Detections:
    return Detections(
        boxes=np.arange(count * 4, dtype=np.float32).reshape(count, 4),
        scores=np.linspace(0.9, 0.1, count, dtype=np.float32),
        labels=np.full(count, label, np.int64),
        classes=CLASSES,
        height=10,
        width=10,
    )


def test_builder_keeps_rows_with_their_image() -> None:
    builder = PredictionsBuilder()
    builder.add(4, detections(2, label=1))
    builder.add(0, detections(0))
    builder.add(2, detections(3))
    found = builder.build()
    assert len(builder) == 3 and len(found) == 5
    assert found.images.tolist() == [4, 4, 2, 2, 2] and found.labels.tolist() == [1, 1, 0, 0, 0]
    assert found.boxes.dtype == np.float32 and found.boxes[1].tolist() == [4.0, 5.0, 6.0, 7.0]
    assert np.array_equal(found.scores[2:], detections(3).scores)


def test_builder_without_detections_is_empty() -> None:
    builder = PredictionsBuilder()
    assert len(builder.build()) == 0
    builder.add(0, detections(0))
    assert builder.build().boxes.shape == (0, 4)


def test_image_that_comes_twice_counts_once() -> None:
    builder = PredictionsBuilder()
    builder.add(1, detections(2))
    builder.add(1, detections(2))
    assert len(builder.build()) == 2


def test_merge_of_processes_gives_the_numbers_of_one() -> None:
    index, found = random_case(3)
    # Three processes as a distributed sampler deals images, with image 0 repeated on the last one as padding.
    parts = [found[found.images % 3 == rank] for rank in range(3)]
    parts[2] = Predictions.concatenate([parts[2], found[found.images == 0]])
    assert sum(map(len, parts)) > len(found)
    merged = Predictions.merge(parts)
    assert len(merged) == len(found) and (np.diff(merged.images) >= 0).all()
    assert evaluate_predictions(index, merged).metrics == evaluate_predictions(index, found).metrics
    assert len(Predictions.merge([])) == 0
