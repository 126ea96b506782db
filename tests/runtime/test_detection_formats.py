"""Detections to other forms and back, and what those forms hold exactly."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyas.errors import UserError
from eyas.runtime import detection_formats as convert
from eyas.types import Detections

CLASSES = ("cat", "dog", "owl")
FOUND = convert.make_detections([[10, 20, 30, 60], [0, 0, 100, 50]], [0.5, 0.75], [2, 0], CLASSES, height=80, width=120)


@st.composite
def detections(draw: st.DrawFn) -> Detections:
    """Draw detections of an image of 80 x 120."""
    num = draw(st.integers(0, 6))
    side = st.floats(0, 80, width=32)
    corners = [sorted((draw(side), draw(side))) + sorted((draw(side), draw(side))) for _ in range(num)]
    boxes = [[a, c, b, d] for a, b, c, d in corners]
    scores = [draw(st.integers(1, 1000)) / 1000 for _ in range(num)]
    labels = [draw(st.integers(0, 2)) for _ in range(num)]
    return convert.make_detections(boxes, scores, labels, CLASSES, 80, 120)


def same(one: Detections, other: Detections, atol: float) -> None:
    """Check that two are the same up to rounding."""
    np.testing.assert_allclose(one.boxes, other.boxes, atol=atol)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-6)
    np.testing.assert_array_equal(one.labels, other.labels)
    assert (one.classes, one.height, one.width) == (other.classes, other.height, other.width)
    assert (other.boxes.dtype, other.scores.dtype, other.labels.dtype) == (np.float32, np.float32, np.int64)


def test_made_best_first() -> None:
    assert FOUND.scores.tolist() == [0.75, 0.5] and FOUND.labels.tolist() == [0, 2]
    assert FOUND.boxes[0].tolist() == [0, 0, 100, 50]


@given(detections())
def test_json_and_back(found: Detections) -> None:
    same(found, convert.from_json(convert.to_json(found)), atol=0)


@given(detections())
def test_coco_and_back(found: Detections) -> None:
    entries = json.loads(json.dumps(convert.to_coco(found, 7, [3, 5, 90])))
    same(found, convert.from_coco(entries, CLASSES, 80, 120, [3, 5, 90]), atol=1e-5)


@given(detections())
def test_yolo_and_back(found: Detections) -> None:
    same(found, convert.from_yolo_txt(convert.to_yolo_txt(found), CLASSES, 80, 120), atol=0.001)


def test_decimals_are_short_and_exact() -> None:
    values = np.array([0.9, 1 / 3, 100, 1e-7, 123.456], np.float32)
    assert convert.decimals(values) == [0.9, 0.33333334, 100.0, 1e-7, 123.456]
    assert convert.decimals(values.reshape(5, 1))[0] == [0.9]
    assert convert.decimals(np.zeros((0, 4), np.float32)) == []
    drawn = np.random.default_rng(0).random(1000).astype(np.float32)
    np.testing.assert_array_equal(np.array(convert.decimals(drawn)).astype(np.float32), drawn)


def test_what_json_holds() -> None:
    assert convert.to_dict(FOUND) == {
        "height": 80,
        "width": 120,
        "classes": ["cat", "dog", "owl"],
        "detections": [
            {"box": [0.0, 0.0, 100.0, 50.0], "score": 0.75, "class": "cat"},
            {"box": [10.0, 20.0, 30.0, 60.0], "score": 0.5, "class": "owl"},
        ],
    }


def test_what_coco_holds() -> None:
    assert convert.to_coco(FOUND, 7) == [
        {"image_id": 7, "category_id": 1, "bbox": [0.0, 0.0, 100.0, 50.0], "score": 0.75},
        {"image_id": 7, "category_id": 3, "bbox": [10.0, 20.0, 20.0, 40.0], "score": 0.5},
    ]


def test_what_yolo_holds() -> None:
    lines = convert.to_yolo_txt(FOUND).splitlines()
    assert lines[0] == "0 0.416667 0.312500 0.833333 0.625000 0.750000"
    assert convert.to_yolo_txt(FOUND, scores=False).splitlines()[1] == "2 0.166667 0.500000 0.166667 0.500000"


@pytest.mark.parametrize("line", ["0 1 2 3", "x 0 0 1 1", "3 0 0 1 1", "-1 0 0 1 1", "0.5 0 0 1 1", "0 1 1 1 1 1 1"])
def test_rubbish_in_yolo_lines_names_the_line(line: str) -> None:
    with pytest.raises(UserError, match="Line 2 is"):
        convert.from_yolo_txt(f"0 0.5 0.5 1 1\n{line}\n", CLASSES, 80, 120)


def test_a_yolo_line_without_score_is_certain() -> None:
    assert convert.from_yolo_txt("0 0.5 0.5 1 1\n\n", CLASSES, 80, 120).scores.tolist() == [1.0]


def test_rubbish_in_json_and_coco() -> None:
    with pytest.raises(UserError, match="not valid JSON"):
        convert.from_json("{")
    with pytest.raises(UserError, match="lack the field 'classes'"):
        convert.from_dict({"detections": []})
    with pytest.raises(UserError, match="contain the class 'owl'"):
        convert.from_dict({**convert.to_dict(FOUND), "classes": ["cat"]})
    with pytest.raises(UserError, match="Unknown category_id 9"):
        convert.from_coco([{"category_id": 9, "bbox": [0, 0, 1, 1], "score": 1}], CLASSES, 80, 120)


@dataclass
class StandIn:
    """The fields of `supervision.Detections` that matter here."""

    xyxy: np.ndarray
    confidence: np.ndarray | None = None
    class_id: np.ndarray | None = None
    data: dict[str, Any] | None = None


def test_supervision_gets_its_fields_and_gives_them_back(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("supervision")
    vars(module)["Detections"] = StandIn
    monkeypatch.setitem(sys.modules, "supervision", module)
    made = convert.to_supervision(FOUND)
    assert made.data["class_name"].tolist() == ["cat", "owl"]
    assert made.xyxy.shape == (2, 4) and made.confidence.tolist() == [0.75, 0.5] and made.class_id.tolist() == [0, 2]
    same(FOUND, convert.from_supervision(made, CLASSES, 80, 120), atol=0)
    assert convert.from_supervision(StandIn(made.xyxy, None, made.class_id), CLASSES, 80, 120).scores.tolist() == [1, 1]
    with pytest.raises(UserError, match="no class_id"):
        convert.from_supervision(StandIn(made.xyxy), CLASSES, 80, 120)


@pytest.mark.skipif(importlib.util.find_spec("supervision") is None, reason="supervision is not installed")
def test_the_real_supervision() -> None:
    import supervision

    made = convert.to_supervision(FOUND)
    assert isinstance(made, supervision.Detections)
    same(FOUND, convert.from_supervision(made, CLASSES, 80, 120), atol=0)
    assert len(convert.to_supervision(FOUND[:0])) == 0


def test_without_supervision_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UserError, match="pip install supervision"):
        convert.to_supervision(FOUND)
