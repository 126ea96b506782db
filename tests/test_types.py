"""The shared types: slicing and iterating detections, and every field that is refused when it makes no sense."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, get_args

import numpy as np
import pytest

from eyas.artifacts.run import RunConfig
from eyas.errors import UserError
from eyas.types import (
    DETECT,
    EVALUATE,
    Detections,
    InputSpec,
    Suppression,
    Thresholds,
    Vocabulary,
    checked_fields,
    evaluation_thresholds,
)


@pytest.fixture
def found() -> Detections:
    boxes = np.arange(12, dtype=np.float32).reshape(3, 4)
    scores = np.array([0.9, 0.5, 0.3], np.float32)
    return Detections(boxes, scores, np.array([1, 0, 1]), ("cat", "dog"), 48, 64)


@pytest.mark.parametrize(
    ("index", "kept"),
    [
        (slice(0, 2), [0, 1]),
        (slice(None, None, -1), [2, 1, 0]),
        (np.array([True, False, True]), [0, 2]),
        (np.array([2]), [2]),
        (slice(0, 0), []),
    ],
)
def test_picking_some(found: Detections, index: Any, kept: list[int]) -> None:
    some = found[index]
    assert len(some) == len(kept)
    np.testing.assert_array_equal(some.boxes, found.boxes[kept])
    np.testing.assert_array_equal(some.scores, found.scores[kept])
    np.testing.assert_array_equal(some.labels, found.labels[kept])
    assert (some.classes, some.height, some.width) == (found.classes, 48, 64)


def test_iterating_gives_names(found: Detections) -> None:
    rows = list(found)
    assert [name for _, _, name in rows] == ["dog", "cat", "dog"]
    assert isinstance(rows[0][1], float) and rows[1][0].tolist() == [4, 5, 6, 7]


def test_detections_are_frozen(found: Detections) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.height = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"confidence": -0.1}, "confidence threshold is -0.1"),
        ({"confidence": 1.1}, "confidence threshold is 1.1"),
        ({"confidence": float("nan")}, "confidence threshold is nan"),
        ({"iou": 2}, "iou threshold is 2"),
        ({"candidates": 0}, "candidates is 0"),
        ({"max_detections": -1}, "max_detections is -1"),
        ({"soft_sigma": 0.0}, "soft_sigma is 0.0"),
        ({"suppression": "sotf"}, r"Unknown suppression 'sotf' \(did you mean 'soft'"),
    ],
)
def test_thresholds_out_of_range(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Thresholds(**fields)


def test_the_limits_of_the_thresholds_are_fine() -> None:
    assert Thresholds(confidence=0, iou=1).iou == 1
    assert EVALUATE.confidence < DETECT.confidence


@pytest.mark.parametrize("suppression", get_args(Suppression))
def test_a_model_is_measured_with_its_own_suppression(suppression: Suppression) -> None:
    own = Thresholds(confidence=0.7, iou=0.3, max_detections=5, suppression=suppression, soft_sigma=0.2)
    expected = dataclasses.replace(EVALUATE, suppression=suppression, soft_sigma=0.2)
    assert evaluation_thresholds(own) == expected
    assert evaluation_thresholds(DETECT) == EVALUATE


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"height": 100}, "input height is 100"),
        ({"width": 0}, "input width is 0"),
        ({"pad_mode": "middle"}, "Unknown pad_mode 'middle'"),
        ({"margin": 640}, "margin is 640"),
        ({"margin": -1}, "margin is -1"),
    ],
)
def test_inputs_that_no_network_takes(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        InputSpec(**fields)


def test_a_wrong_size_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match="use 96"):
        InputSpec(height=100)
    with pytest.raises(UserError, match="use 32"):
        InputSpec(height=3)


def test_an_input_spec_through_json() -> None:
    spec = InputSpec(320, 416, margin=0, pad_mode="bottom_right", pad_value=0, scale=1.0)
    assert InputSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    with pytest.raises(UserError, match=r"Unknown field 'hieght' \(did you mean 'height'"):
        InputSpec.from_dict({"hieght": 320})


def test_checked_fields_says_where() -> None:
    assert checked_fields(RunConfig, {"classes": ("a",)}, "x.json") == {"classes": ("a",)}
    with pytest.raises(UserError, match=r"where:    x\.json"):
        checked_fields(RunConfig, {"clases": ("a",)}, "x.json")


def test_a_vocabulary_is_names_and_what_stands_for_them() -> None:
    words = Vocabulary(("red car", "boat"), np.eye(2, 5, dtype=np.float32))
    assert len(words) == 2 and words.embeddings is not None and words.embeddings.shape == (2, 5)
    assert Vocabulary.numbered(3).names == ("0", "1", "2") and Vocabulary(("a",)).embeddings is None


@pytest.mark.parametrize(
    ("names", "embeddings", "words"),
    [
        ((), None, "no class"),
        (("a", "a"), None, "Duplicate class names"),
        (("a", "b"), np.zeros((3, 4), np.float32), r"2 classes are float32 \[3, 4\]"),
        (("a",), np.zeros(4, np.float32), r"float32 \[4\]"),
        (("a",), np.zeros((1, 4)), "float64"),
        (("a",), np.full((1, 4), np.nan, np.float32), "finite"),
    ],
)
def test_an_impossible_vocabulary_is_refused(names: tuple[str, ...], embeddings: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Vocabulary(names, embeddings)
