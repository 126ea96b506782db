"""How good a detector is: the COCO numbers, and a report folder that shows where it fails."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eyas.evaluation.coco import CocoResult


def evaluate(
    run: str | Path,
    data: str | Path,
    split: str = "val",
    out: str | Path | None = None,
    *,
    size: int | None = None,
    confidence: float = 0.25,
    batch: int = 8,
    progress: bool = False,
    rows: str | None = None,
) -> CocoResult:
    """Measure a trained model on a dataset, write a report folder and return the COCO numbers.

    Args:
        run: the model's folder.
        data: the dataset's folder, one COCO .json file or a data.yaml. Its classes are matched with the model's by
            name, whatever their order.
        split: the split to evaluate on.
        out: the report's folder; by default `evaluation/DATA-SPLIT` in the model's folder.
        size: the network's input side in pixels; by default the one it was trained with.
        confidence: what counts as a detection in the confusion matrix and among the worst images; the COCO numbers
            know no threshold.
        batch: images that go through the network at once.
        progress: show a progress bar on stderr.
        rows: what long rows of YOLO label files hold ("polygon", "keypoints", "oriented"), if they alone do not say.

    Raises:
        UserError: something given can't be used, or the dataset has classes that the model doesn't know.
    """
    from eyas.evaluation.run import evaluate_run

    return evaluate_run(
        run, data, split, out, size=size, confidence=confidence, batch=batch, progress=progress, rows=rows
    ).result
