"""Classes are matched by name: any order is right, a name that the model doesn't know is refused."""

from __future__ import annotations

import pytest
from tests.evaluation.cases import found_of, truth_of

from eyas.errors import UserError
from eyas.evaluation.coco import evaluate_predictions
from eyas.evaluation.label_mapping import align_classes

A = (0.0, 0.0, 100.0, 100.0)
B = (300.0, 300.0, 400.0, 400.0)


def test_permuted_order_is_mapped_by_name() -> None:
    index = truth_of([(0, 0, A), (0, 1, B)], 1, classes=("dog", "cat"))  # A is a dog, B a cat
    aligned, missing = align_classes(index, ("cat", "dog", "bird"))
    assert aligned.classes == ("cat", "dog", "bird") and missing == ("bird",)
    assert aligned.labels.tolist() == [1, 0]
    assert aligned.category_ids[:2] == (2, 1)  # the ids of the source go with their names
    found = found_of([(0, 1, A, 0.9), (0, 0, B, 0.9)])
    assert evaluate_predictions(aligned, found).ap == pytest.approx(1.0)
    assert index.labels.tolist() == [0, 1]  # the source is untouched


def test_same_classes_change_nothing() -> None:
    index = truth_of([(0, 1, A)], 1)
    aligned, missing = align_classes(index, index.classes)
    assert aligned is index and missing == ()


def test_unknown_class_is_refused_with_its_nearest_name() -> None:
    index = truth_of([(0, 0, A), (0, 1, B), (0, 1, A)], 1, classes=("cat", "Bicycle"))
    with pytest.raises(UserError) as error:
        align_classes(index, ("cat", "bicycle"))
    message = str(error.value)
    assert "'Bicycle' (2 boxes) (did you mean 'bicycle'?)" in message
    assert "'cat' (" not in message  # only what differs
    assert "'cat', 'bicycle'" in message and "rename" in message and "split 'val'" in message


def test_unknown_class_without_boxes_is_no_obstacle() -> None:
    index = truth_of([(0, 1, A)], 1, classes=("objects", "cat"))  # exporters add such a class
    aligned, missing = align_classes(index, ("cat",))
    assert aligned.classes == ("cat",) and aligned.labels.tolist() == [0] and missing == ()
