"""The table of classes, one row a class, that the terminal, the CSV file and the page show."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from eyas.evaluation.coco import CocoResult, finite
from eyas.evaluation.confidence import THRESHOLDS, ConfidenceCurves
from eyas.text import csv_cell

Row = Mapping[str, str | int | float | None]

# Column -> its heading where people read it.
CLASS_COLUMNS: Mapping[str, str] = MappingProxyType(
    {
        "name": "class",
        "boxes": "boxes",
        "predictions": "predictions",
        "AP": "AP",
        "AP50": "AP50",
        "AR_100": "AR",
        "precision": "precision",
        "recall": "recall",
        "F1": "F1",
        "best_confidence": "best confidence",
        "best_F1": "best F1",
    }
)


def class_rows(result: CocoResult, curves: ConfidenceCurves, confidence: float) -> tuple[Row, ...]:
    """Return a row for each class, in label order; undefined numbers are None.

    Precision, recall and F1 are those at `confidence`; `best_confidence` is the threshold with the class's best F1.
    """
    column = int(np.abs(THRESHOLDS - confidence).argmin())
    return tuple(
        {
            "name": name,
            "boxes": int(result.class_boxes[i]),
            "predictions": int(result.class_predictions[i]),
            "AP": finite(result.class_ap[i]),
            "AP50": finite(result.class_ap50[i]),
            "AR_100": finite(result.class_ar[i]),
            "precision": finite(curves.precision[i, column]),
            "recall": finite(curves.recall[i, column]),
            "F1": finite(curves.f1[i, column]),
            "best_confidence": finite(curves.class_best[i]),
            "best_F1": finite(curves.f1[i].max()),
        }
        for i, name in enumerate(result.classes)
    )


def class_csv(rows: Sequence[Row]) -> str:
    """Return the table as CSV; undefined numbers are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CLASS_COLUMNS)
    writer.writerows([csv_cell(row[column]) for column in CLASS_COLUMNS] for row in rows)
    return text.getvalue()


def cell(value: object) -> str:
    """Return what a person reads: three decimals, thousands apart, a dash for an undefined number."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
