"""The COCO numbers: equal to the reference implementation's bit by bit, and right on cases worked out by hand."""

from __future__ import annotations

import contextlib
import io
import json
import math
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tests.evaluation.cases import found_of, random_case, truth_of

from eyas.data.index import DatasetIndex
from eyas.errors import UserError
from eyas.evaluation.coco import METRICS, evaluate_predictions
from eyas.evaluation.predictions import Predictions

BOX = (10.0, 10.0, 110.0, 110.0)
AWAY = (300.0, 300.0, 400.0, 400.0)


def reference(index: DatasetIndex, found: Predictions) -> Any:
    """Return pycocotools' evaluator after accumulate and summarize, fed with plain COCO dictionaries."""

    def xywh(box: np.ndarray) -> list[float]:
        left, top, right, bottom = (float(value) for value in box)
        return [left, top, right - left, bottom - top]

    truth = COCO()
    truth.dataset = {
        "images": [{"id": int(i)} for i in index.image_ids],
        "categories": [{"id": i, "name": n} for i, n in zip(index.category_ids, index.classes, strict=True)],
        "annotations": [
            {
                "id": row + 1,
                "image_id": int(index.image_ids[number]),
                "category_id": index.category_ids[int(index.labels[row])],
                "bbox": xywh(index.boxes[row]),
                "area": float(index.areas[row]),
                "iscrowd": int(index.crowd[row]),
            }
            for row, number in enumerate(index.image_of_row())
        ],
    }
    results = [
        {
            "image_id": int(index.image_ids[image]),
            "category_id": index.category_ids[int(label)],
            "bbox": xywh(box),
            "score": float(score),
        }
        for image, box, score, label in zip(found.images, found.boxes, found.scores, found.labels, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        engine = COCOeval(truth, truth.loadRes(results), "bbox")
        engine.evaluate()
        engine.accumulate()
        engine.summarize()
    return engine


@pytest.mark.parametrize("seed", range(6))
def test_bit_equal_to_pycocotools(seed: int) -> None:
    index, found = random_case(seed)
    assert index.crowd.any() and (np.bincount(found.images) > 100).any()
    result = evaluate_predictions(index, found)
    engine = reference(index, found)
    ours = np.array([result.metrics[name] for name in METRICS])
    assert np.array_equal(np.nan_to_num(ours, nan=-1.0), engine.stats)
    assert 0.2 < result.ap < 0.9  # a case that means something

    precision = engine.eval["precision"][:, :, :, 0, -1]
    precision = np.where(precision < 0, np.nan, precision)
    assert np.array_equal(result.precision50, precision[0].T, equal_nan=True)
    assert np.array_equal(result.class_ap50, precision[0].mean(axis=0), equal_nan=True)
    assert np.allclose(result.class_ap, precision.mean(axis=(0, 1)), rtol=0, atol=1e-15, equal_nan=True)
    assert np.allclose(result.precision, precision.mean(axis=0).T, rtol=0, atol=1e-15, equal_nan=True)
    assert math.isclose(np.nanmean(result.class_ap), result.ap, abs_tol=1e-12)
    assert math.isnan(result.class_ap[-1])  # the last class has no truth
    assert result.class_ap[1] == 0.0  # never predicted


def test_perfect_detector_is_one() -> None:
    rows = [(0, 0, BOX), (0, 1, AWAY), (1, 0, (5.0, 5.0, 25.0, 25.0))]
    index = truth_of(rows, images=3)
    result = evaluate_predictions(index, found_of([(*row, 0.9) for row in rows]))
    assert result.ap == pytest.approx(1.0) and result.metrics["AR_100"] == 1.0
    assert result.metrics["AP_small"] == pytest.approx(1.0) and result.metrics["AP_large"] == pytest.approx(1.0)
    assert math.isnan(result.metrics["AP_medium"])  # there is no medium object
    assert result.size_boxes == (1, 0, 2)
    assert (result.num_images, result.num_boxes, result.num_crowds, result.num_predictions) == (3, 3, 0, 3)
    assert result.class_boxes.tolist() == [2, 1] and result.class_predictions.tolist() == [2, 1]


def test_half_of_the_objects_found() -> None:
    index = truth_of([(0, 0, BOX), (1, 0, BOX)], images=2)
    result = evaluate_predictions(index, found_of([(0, 0, BOX, 0.9)]))
    # Precision is 1 at the recall points 0, .01, ... .50 (51 of the 101) and 0 beyond.
    assert result.ap == pytest.approx(51 / 101)
    assert result.metrics["AR_100"] == 0.5
    assert np.allclose(result.precision50[0], [1.0] * 51 + [0.0] * 50)


def test_false_detection_with_a_better_score_halves_precision() -> None:
    index = truth_of([(0, 0, BOX)], images=1)
    assert evaluate_predictions(index, found_of([(0, 0, BOX, 0.5), (0, 0, AWAY, 0.9)])).ap == pytest.approx(0.5)
    assert evaluate_predictions(index, found_of([(0, 0, BOX, 0.9), (0, 0, AWAY, 0.5)])).ap == pytest.approx(1.0)


def test_loose_box_counts_up_to_its_iou() -> None:
    # 100 x 100 against 100 x 72: IoU 0.72, right at the five thresholds .50 to .70, wrong at the other five.
    index = truth_of([(0, 0, (0.0, 0.0, 100.0, 100.0))], images=1)
    result = evaluate_predictions(index, found_of([(0, 0, (0.0, 0.0, 100.0, 72.0), 0.9)]))
    assert result.ap == pytest.approx(0.5) and result.ap50 == pytest.approx(1.0) and result.metrics["AP75"] == 0.0


def test_detection_inside_a_crowd_is_neither_right_nor_wrong() -> None:
    rows = [(0, 0, BOX), (0, 0, (200.0, 200.0, 600.0, 400.0))]
    found = found_of([(0, 0, (250.0, 250.0, 300.0, 300.0), 0.9), (0, 0, BOX, 0.5)])
    assert evaluate_predictions(truth_of(rows, 1, crowd=[False, True]), found).ap == pytest.approx(1.0)
    assert evaluate_predictions(truth_of(rows, 1), found).ap < 0.5
    result = evaluate_predictions(truth_of(rows, 1, crowd=[False, True]), found)
    assert (result.num_boxes, result.num_crowds) == (1, 1)


def test_nothing_to_evaluate_on_is_refused() -> None:
    with pytest.raises(UserError, match="no images"):
        evaluate_predictions(truth_of([], 0), Predictions.empty())
    with pytest.raises(UserError, match="None of the 4 images has a usable ground-truth box"):
        evaluate_predictions(truth_of([], 4), Predictions.empty())
    with pytest.raises(UserError, match="None of the 1 images"):
        evaluate_predictions(truth_of([(0, 0, BOX)], 1, crowd=[True]), Predictions.empty())


def test_diverged_model_is_named() -> None:
    found = found_of([(0, 0, (0.0, 0.0, math.nan, 5.0), 0.9), (0, 0, BOX, 0.9)])
    with pytest.raises(UserError, match="1 of 2 predictions are not finite"):
        evaluate_predictions(truth_of([(0, 0, BOX)], 1), found)


def test_json_has_no_nan() -> None:
    index, found = random_case(0)
    fields = evaluate_predictions(index, found).to_dict()
    again = json.loads(json.dumps(fields, allow_nan=False))
    assert again["per_class"][-1]["AP"] is None and again["metrics"]["AP"] == fields["metrics"]["AP"]
    assert len(again["curves"]["precision_iou50"]) == 6 and len(again["curves"]["recall"]) == 101


@pytest.mark.parametrize("found", [[(0, 1, BOX, 0.9)], [(1, 0, BOX, 0.9)], []], ids=["class", "image", "nothing"])
def test_the_wrong_class_or_image_or_nothing_is_zero(found: list[Any], capfd: pytest.CaptureFixture[str]) -> None:
    result = evaluate_predictions(truth_of([(0, 0, BOX)], images=2), found_of(found))
    assert result.ap == 0.0 == result.metrics["AR_100"] and result.num_predictions == len(found)
    assert capfd.readouterr() == ("", "")
