"""The COCO detection metrics of predictions given as columns (Lin et al., 2014), computed by hotcoco.

The numbers are bit-equal to pycocotools' for the same boxes. Where COCO writes -1 (no truth of that kind) this module
writes NaN, so that an undefined number can't be mistaken for a bad one or be averaged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import hotcoco
import numpy as np
import numpy.typing as npt

from eyas.data.checks.usable import measured_boxes
from eyas.data.index import DatasetIndex
from eyas.errors import UserError
from eyas.evaluation.predictions import Predictions

Float64Array = npt.NDArray[np.float64]

METRICS = (
    "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
    "AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large",
)  # fmt: skip
MEANINGS = (
    "average precision, mean over IoU 0.50 to 0.95",
    "average precision at IoU 0.50",
    "average precision at IoU 0.75",
    "average precision of small objects (below 32² pixels)",
    "average precision of medium objects (32² to 96² pixels)",
    "average precision of large objects (above 96² pixels)",
    "average recall with 1 detection per image",
    "average recall with 10 detections per image",
    "average recall with 100 detections per image",
    "average recall of small objects",
    "average recall of medium objects",
    "average recall of large objects",
)
SIZES = ("small", "medium", "large")
SIZE_EDGES = (32.0**2, 96.0**2)  # square pixels between small, medium and large
RECALL_POINTS = np.linspace(0.0, 1.0, 101)  # where precision is read: COCO's 101 points


@dataclass(frozen=True)
class CocoResult:
    """How well predictions match a dataset's truth. NaN stands for "undefined: there is no truth of that kind".

    Attributes:
        metrics: the 12 COCO numbers by name (`METRICS`), each 0..1.
        classes: class names; C of them.
        class_ap, class_ap50, class_ar: float64 [C], AP (mean over IoU .50:.95), AP at IoU .50, AR with 100 detections.
        class_boxes: int64 [C], truth boxes of each class (crowds not counted).
        class_predictions: int64 [C], predictions of each class.
        precision50: float64 [C, 101], precision at `RECALL_POINTS` at IoU .50.
        precision: float64 [C, 101], the same, mean over IoU .50:.95.
        size_boxes: truth boxes that are small, medium and large (crowds not counted).
        num_images: images that were evaluated.
        num_boxes: truth boxes in them (crowds not counted).
        num_crowds: truth boxes that stand for crowds: a detection inside one is neither right nor wrong.
        num_predictions: predictions.
    """

    metrics: dict[str, float]
    classes: tuple[str, ...]
    class_ap: Float64Array
    class_ap50: Float64Array
    class_ar: Float64Array
    class_boxes: npt.NDArray[np.int64]
    class_predictions: npt.NDArray[np.int64]
    precision50: Float64Array
    precision: Float64Array
    size_boxes: tuple[int, int, int]
    num_images: int
    num_boxes: int
    num_crowds: int
    num_predictions: int

    @property
    def ap(self) -> float:
        """AP, the mean over IoU 0.50 to 0.95: the number that models are compared by."""
        return self.metrics["AP"]

    @property
    def ap50(self) -> float:
        """AP at IoU 0.50."""
        return self.metrics["AP50"]

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON; undefined numbers become None."""
        return {
            "metrics": {name: finite(value) for name, value in self.metrics.items()},
            "counts": {
                "images": self.num_images,
                "boxes": self.num_boxes,
                "crowds": self.num_crowds,
                "predictions": self.num_predictions,
                **{f"boxes_{size}": count for size, count in zip(SIZES, self.size_boxes, strict=True)},
            },
            "per_class": [
                {
                    "name": name,
                    "AP": finite(self.class_ap[i]),
                    "AP50": finite(self.class_ap50[i]),
                    "AR_100": finite(self.class_ar[i]),
                    "boxes": int(self.class_boxes[i]),
                    "predictions": int(self.class_predictions[i]),
                }
                for i, name in enumerate(self.classes)
            ],
            "curves": {
                "recall": RECALL_POINTS.tolist(),
                "precision_iou50": [[finite(value) for value in row] for row in self.precision50],
                "precision": [[finite(value) for value in row] for row in self.precision],
            },
        }


def finite(value: float) -> float | None:
    """Return the number, or None for NaN (JSON has none)."""
    return None if math.isnan(value) else float(value)


def check_truth(index: DatasetIndex) -> None:
    """Raise a UserError if the dataset can't be evaluated on; call it before the expensive part."""
    where = f"{index.root}, split '{index.split}'"
    if not len(index):
        raise UserError("The dataset has no images to evaluate on.", where=where, expected="at least one image")
    usable = measured_boxes(index)
    if not usable.kept.any():
        why = f": {len(index.labels):,} boxes, of which {usable.told()}" if len(index.labels) else ""
        raise UserError(
            f"None of the {len(index)} images has a usable ground-truth box{why}, so there is nothing to compare "
            "detections with.",
            where=where,
            expected="at least one labelled object that is not a crowd",
            fix="check that the annotations belong to these images: eyas data check",
        )


def evaluate_predictions(index: DatasetIndex, predictions: Predictions) -> CocoResult:
    """Return the COCO metrics of `predictions` against the truth of `index`.

    Args:
        index: the truth.
        predictions: what was found, in the pixels, image order and label order of `index`.

    Raises:
        UserError: there is no image or no truth box; or a prediction is not finite (a diverged model).
    """
    check_truth(index)
    _check(index, predictions)
    # COCO breaks ties between equal scores by the order of the image ids, so the ids' ranks stand for them.
    ids = np.empty(len(index), np.int64)
    ids[np.argsort(index.image_ids, kind="stable")] = np.arange(1, len(index) + 1)
    truth = _truth(index, ids)
    found = truth.load_res(_rows(predictions, ids))
    engine = hotcoco.COCOeval(truth, found, "bbox")
    engine.evaluate()
    engine.accumulate()
    engine.summary_lines()  # fills .stats without printing
    return _result(index, predictions, engine)


def _check(index: DatasetIndex, predictions: Predictions) -> None:
    finite_rows = np.isfinite(predictions.boxes).all(axis=1) & np.isfinite(predictions.scores)
    if not finite_rows.all():
        raise UserError(
            f"{int((~finite_rows).sum())} of {len(predictions)} predictions are not finite: the model has diverged.",
            fix="train with a lower learning rate or a higher precision",
        )
    for name, column, limit in (
        ("images", predictions.images, len(index)),
        ("labels", predictions.labels, len(index.classes)),
    ):
        assert not len(column) or (column.min() >= 0 and column.max() < limit), f"{name} out of range 0..{limit - 1}"


def _truth(index: DatasetIndex, ids: npt.NDArray[np.int64]) -> hotcoco.COCO:
    """Return the truth as hotcoco's dataset; category c has the id c + 1."""
    images = [{"id": int(i)} for i in ids]
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(index.classes)]
    owner = ids[index.image_of_row()]
    boxes = index.boxes.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    return hotcoco.COCO.from_arrays(
        images, categories, owner, index.labels + 1, boxes, area=index.areas.astype(np.float64), iscrowd=index.crowd
    )


def _rows(predictions: Predictions, ids: npt.NDArray[np.int64]) -> Float64Array:
    """Return rows of (image id, left, top, width, height, score, category id), the form that COCO results take."""
    rows = np.empty((len(predictions), 7), np.float64)
    rows[:, 0] = ids[predictions.images]
    rows[:, 1:5] = predictions.boxes
    rows[:, 3:5] -= rows[:, 1:3]
    rows[:, 5] = predictions.scores
    rows[:, 6] = predictions.labels + 1
    return rows


def _result(index: DatasetIndex, predictions: Predictions, engine: hotcoco.COCOeval) -> CocoResult:
    """Read the engine's tables: precision [IoU, recall point, class, size, limit], recall [IoU, class, size, limit]."""
    tables = engine.eval
    assert tables is not None, "the engine has not accumulated"
    num_classes = len(index.classes)
    precision = _undefined_to_nan(tables["precision"][:, :, :, 0, -1])  # every size, the best 100 detections
    recall = _undefined_to_nan(tables["recall"][:, :, 0, -1])
    labels = index.labels[~index.crowd]
    areas = index.areas[~index.crowd]
    edges = np.searchsorted(SIZE_EDGES, areas)
    small, medium, large = (int(count) for count in np.bincount(edges, minlength=3))
    stats = _undefined_to_nan(np.asarray(engine.stats, np.float64))
    return CocoResult(
        metrics={name: float(value) for name, value in zip(METRICS, stats, strict=True)},
        classes=index.classes,
        class_ap=precision.mean(axis=(0, 1)),
        class_ap50=precision[0].mean(axis=0),
        class_ar=recall.mean(axis=0),
        class_boxes=np.bincount(labels, minlength=num_classes).astype(np.int64),
        class_predictions=np.bincount(predictions.labels, minlength=num_classes).astype(np.int64),
        precision50=np.ascontiguousarray(precision[0].T),
        precision=np.ascontiguousarray(precision.mean(axis=0).T),
        size_boxes=(small, medium, large),
        num_images=len(index),
        num_boxes=len(labels),
        num_crowds=int(index.crowd.sum()),
        num_predictions=len(predictions),
    )


def _undefined_to_nan(values: Float64Array) -> Float64Array:
    return np.where(values == -1.0, np.nan, values)
