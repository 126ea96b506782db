"""`eyas evaluate RUN --data ROOT`: the COCO numbers of a model on a dataset, and a report folder."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from eyas.cli.rows_option import add_rows
from eyas.text import json_text, say

if TYPE_CHECKING:
    from rich.table import Table

    from eyas.evaluation.run import EvaluationReport

HELP = "Measure a model on a dataset: COCO metrics, and a report that shows where it fails."
EXAMPLES: tuple[str, ...] = (
    "eyas evaluate runs/quickstart --data data/shapes",
    "eyas evaluate runs/quickstart --data data/shapes --split train --conf 0.4 --out reports/train",
    "eyas evaluate runs/quickstart --data data/shapes --json",
)
SHOWN_COLUMNS = ("name", "boxes", "AP", "AP50", "AR_100", "precision", "recall", "F1")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("run", metavar="RUN", type=Path, help="the folder of a trained run or of a bundle")
    parser.add_argument(
        "--data", metavar="ROOT", type=Path, required=True, help="the dataset: a folder, a COCO .json or a data.yaml"
    )
    add_rows(parser)
    parser.add_argument("--split", default="val", help="the split to evaluate on (default: val)")
    parser.add_argument("--size", type=int, help="the network's input side in pixels (default: as trained)")
    parser.add_argument(
        "--conf",
        metavar="0..1",
        type=float,
        default=0.25,
        help="minimum score of a detection in the confusion matrix, precision, recall and F1 (default: 0.25); AP and "
        "AR do not depend on it",
    )
    parser.add_argument("--batch", metavar="N", type=int, default=8, help="images per batch (default: 8)")
    parser.add_argument(
        "--out", metavar="FOLDER", type=Path, help="the report's folder (default: RUN/evaluation/ROOT-SPLIT)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON only")


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the numbers and where the report lies; return 0."""
    from eyas.evaluation.run import evaluate_run

    evaluation = evaluate_run(
        args.run,
        args.data,
        args.split,
        args.out,
        size=args.size,
        confidence=args.conf,
        batch=args.batch,
        progress=sys.stderr.isatty(),
        rows=args.rows,
    )
    if args.json:
        say(json_text(as_json(evaluation), indent=2))
    else:
        show(evaluation, args.conf)
    return 0


def as_json(evaluation: EvaluationReport) -> dict[str, object]:
    """Return what `--json` prints: the numbers without the curves, which lie in the report's metrics.json."""
    from eyas.evaluation.coco import finite

    fields = evaluation.result.to_dict()
    return {
        "metrics": fields["metrics"],
        "counts": fields["counts"],
        "per_class": [dict(row) for row in evaluation.rows],
        "best_confidence": finite(evaluation.best_confidence),
        "warnings": list(evaluation.warnings),
        "report": str(evaluation.folder),
    }


def show(evaluation: EvaluationReport, confidence: float) -> None:
    """Print both tables, the warnings and the report's place."""
    from eyas.terminal import open_console

    result = evaluation.result
    console = open_console()
    console.print(_metrics_table(evaluation))
    console.print(_classes_table(evaluation, confidence))
    console.print(f"{result.num_images:,} images, {result.num_boxes:,} objects, {result.num_predictions:,} detections")
    if not math.isnan(evaluation.best_confidence):
        console.print(f"best mean F1 at confidence {evaluation.best_confidence:.2f}")
    for line in evaluation.warnings:
        console.print(f"warning: {line}", style="yellow", markup=False)
    console.print(f"report: {evaluation.folder / 'index.html'}", markup=False, soft_wrap=True)


def _metrics_table(evaluation: EvaluationReport) -> Table:
    from eyas.evaluation.coco import MEANINGS, METRICS
    from eyas.evaluation.tables import cell
    from eyas.terminal import open_table

    table = open_table("metric", ">value", "meaning", title="COCO metrics", lines=True)
    for name, meaning in zip(METRICS, MEANINGS, strict=True):
        table.add_row(name, cell(evaluation.result.metrics[name]), meaning, style="bold" if name == "AP" else None)
    return table


def _classes_table(evaluation: EvaluationReport, confidence: float) -> Table:
    from rich.markup import escape

    from eyas.evaluation.tables import CLASS_COLUMNS, cell
    from eyas.terminal import open_table

    title = f"Classes (precision, recall, F1 at confidence {confidence:.2f})"
    heads = (("" if name == "name" else ">") + CLASS_COLUMNS[name] for name in SHOWN_COLUMNS)
    table = open_table(*heads, title=title, lines=True)
    for row in evaluation.rows:
        table.add_row(*(escape(cell(row[name])) for name in SHOWN_COLUMNS))
    return table
