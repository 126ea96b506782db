"""The report folder of an evaluation: numbers, tables, charts and a page that shows all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eyas.data.index import DatasetIndex
from eyas.errors import UserError
from eyas.evaluation.charts import plot_f1, plot_per_class, plot_precision_recall, plot_sizes
from eyas.evaluation.coco import CocoResult, evaluate_predictions, finite
from eyas.evaluation.confidence import ConfidenceCurves, confidence_curves
from eyas.evaluation.confusion_chart import plot_confusion
from eyas.evaluation.hardest import WorstImage, draw_worst, worst_images
from eyas.evaluation.html import html_page
from eyas.evaluation.matching import Matches, confusion_matrix, match_predictions
from eyas.evaluation.predictions import PredictionRun, Predictions
from eyas.evaluation.tables import Row, class_csv
from eyas.files import atomic_path, write_json, write_text
from eyas.renamed import with_old_keys

METRICS_FILE = "metrics.json"
CLASSES_FILE = "per_class.csv"
DETECTIONS_FILE = "detections.json"
PAGE_FILE = "index.html"
CONFIDENCE = 0.25  # what is counted as a detection in the confusion matrix and the worst images
_WORST_TEXT = (
    "Ground truth next to detections, most errors first. Green: detected and correct; red: missed and false; grey: "
    "crowds."
)
# File -> its heading and explanation on the page, in the page's order.
_CHARTS: Mapping[str, tuple[str, str]] = {
    "precision_recall.png": ("Precision and recall", "Precision of the detections at each level of recall."),
    "f1_confidence.png": (
        "Confidence threshold",
        "Precision, recall and F1 at each threshold. The best mean F1 is marked.",
    ),
    "per_class_ap.png": ("AP per class", "Mean over IoU 0.50 to 0.95, and at IoU 0.50."),
    "size_breakdown.png": ("Object size", "Sizes are object areas in the original images."),
    "confusion_matrix.png": (
        "Confusion",
        "Objects are matched with detections of their own class first, then of others.",
    ),
    "worst_images.png": ("Worst images", _WORST_TEXT),
}


@dataclass(frozen=True)
class Analysis:
    """All that a report shows, computed from the truth and the predictions.

    Attributes:
        result: the COCO numbers.
        matches: which detection found which object, at IoU .50.
        curves: precision, recall and F1 by confidence threshold.
        confusion: int64 [C + 1, C + 1], at `confidence`.
        worst: the images with the most errors at `confidence`.
        confidence: the threshold of the above two.
    """

    result: CocoResult
    matches: Matches
    curves: ConfidenceCurves
    confusion: npt.NDArray[np.int64]
    worst: tuple[WorstImage, ...]
    confidence: float


@dataclass(frozen=True)
class Subject:
    """What a report is about, for its heading and its files.

    Attributes:
        title: the page's heading.
        facts: name -> value of what should be told beside the numbers (the model's path, the session, ...).
        warnings: sentences that must be read with the numbers.
    """

    title: str = "Evaluation"
    facts: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def analyse(index: DatasetIndex, predictions: Predictions, confidence: float = CONFIDENCE) -> Analysis:
    """Return all that a report shows; pure arithmetic, a second or two for 5,000 images."""
    result = evaluate_predictions(index, predictions)
    matches = match_predictions(index, predictions)
    return Analysis(
        result=result,
        matches=matches,
        curves=confidence_curves(index, predictions, matches),
        confusion=confusion_matrix(index, predictions, matches, confidence),
        worst=worst_images(index, predictions, matches, confidence),
        confidence=confidence,
    )


def make_folder(folder: Path) -> None:
    """Make the report's folder; called before the expensive part, so that a wrong path costs no time."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError("The report can't be written: a file is in the way.", where=str(folder)) from None


def write_report(
    out: Path, index: DatasetIndex, run: PredictionRun, analysis: Analysis, subject: Subject, rows: Sequence[Row]
) -> None:
    """Write every file of the report into the folder `out`."""
    result, curves, confidence = analysis.result, analysis.curves, analysis.confidence
    write_text(out / CLASSES_FILE, class_csv(rows))
    write_detections(out / DETECTIONS_FILE, index, run.predictions)
    plot_precision_recall(result, out / "precision_recall.png")
    plot_f1(result, curves, out / "f1_confidence.png")
    plot_per_class(result, out / "per_class_ap.png")
    plot_sizes(result, out / "size_breakdown.png")
    plot_confusion(analysis.confusion, index.classes, confidence, out / "confusion_matrix.png")
    draw_worst(index, run.predictions, analysis.matches, confidence, analysis.worst, out / "worst_images.png")
    facts = {
        **subject.facts,
        "dataset": f"{index.root}, split '{index.split}'",
        "size": f"{result.num_images:,} images, {result.num_boxes:,} objects, {len(index.classes)} classes",
        "detections": f"{result.num_predictions:,}",
        "detecting": f"{1000 * run.seconds / len(index):.1f} ms per image, from pixels to detections",
    }
    charts = [(*_CHARTS[name], out / name) for name in _CHARTS]
    write_text(out / PAGE_FILE, html_page(subject.title, facts, result, rows, subject.warnings, charts))
    write_json(out / METRICS_FILE, with_old_keys(report_fields(index, run, analysis, subject, rows)))


def report_fields(
    index: DatasetIndex, run: PredictionRun, analysis: Analysis, subject: Subject, rows: Sequence[Row]
) -> dict[str, Any]:
    """Return every number of the report, ready for JSON."""
    fields = analysis.result.to_dict()
    return {
        "subject": {"title": subject.title, **subject.facts},
        "dataset": {"root": str(index.root), "split": index.split, "classes": list(index.classes)},
        "warnings": list(subject.warnings),
        **{name: fields[name] for name in ("metrics", "counts")},
        "per_class": [dict(row) for row in rows],
        "at_confidence": _operating_point(analysis.curves, analysis.confidence),
        "at_best_confidence": _operating_point(analysis.curves, analysis.curves.best),
        "confusion_matrix": {
            "rows": "truth",
            "columns": "prediction",
            "classes": [*index.classes, "background"],
            "counts": analysis.confusion.tolist(),
        },
        "worst_images": [
            {"file": index.files.name(image.image), "missed": image.missed, "false": image.false}
            for image in analysis.worst
        ],
        "unreadable": [{"file": index.files.name(i), "why": why} for i, why in run.unreadable],
        "milliseconds_per_image": 1000 * run.seconds / len(index),
        "curves": fields["curves"],
    }


def write_detections(path: Path, index: DatasetIndex, predictions: Predictions) -> None:
    """Write the predictions as COCO results, one a line, with the image and category ids of the source."""
    boxes = predictions.boxes.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    image_ids = [json.dumps(each) for each in index.source_ids()]
    category_ids = [json.dumps(each) for each in index.category_ids]
    lines = (
        f'{{"image_id":{image_ids[image]},"category_id":{category_ids[label]},'
        f'"bbox":[{x:.9g},{y:.9g},{w:.9g},{h:.9g}],"score":{score:.9g}}}'
        for image, label, (x, y, w, h), score in zip(
            predictions.images.tolist(),
            predictions.labels.tolist(),
            boxes.tolist(),
            predictions.scores.tolist(),
            strict=True,
        )
    )
    with atomic_path(path) as temporary:
        temporary.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def _operating_point(curves: ConfidenceCurves, confidence: float) -> dict[str, float | None]:
    values = (finite(value) for value in (confidence, *curves.at(confidence)))
    return dict(zip(("confidence", "precision", "recall", "F1"), values, strict=True))
