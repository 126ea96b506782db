"""From a model's folder and a dataset's to a report: a detector runs over images that are read ahead of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from eyas.artifacts.hints import refuse_file
from eyas.data.formats import load_dataset
from eyas.data.index import DatasetIndex
from eyas.errors import UserError, shorten
from eyas.evaluation.coco import CocoResult, check_truth
from eyas.evaluation.label_mapping import align_classes
from eyas.evaluation.predictions import DetectsBatches, predict_dataset
from eyas.evaluation.report import CONFIDENCE, Subject, analyse, make_folder, write_report
from eyas.evaluation.tables import Row, class_rows
from eyas.files import writing
from eyas.runtime.detector import Detector
from eyas.runtime.loading import load
from eyas.runtime.trained_size import size_note, trained_size
from eyas.types import Detections, UInt8Array, evaluation_thresholds


@dataclass(frozen=True)
class EvaluationReport:
    """A finished evaluation.

    Attributes:
        result: the COCO numbers.
        folder: where the report lies.
        rows: the table of classes, each row by `eyas.evaluation.tables.CLASS_COLUMNS`.
        warnings: sentences that must be read with the numbers.
        best_confidence: the threshold with the best mean F1 at IoU .50; NaN when no detection is right.
    """

    result: CocoResult
    folder: Path
    rows: tuple[Row, ...]
    warnings: tuple[str, ...]
    best_confidence: float


def evaluate_run(
    run: str | Path,
    data: str | Path,
    split: str = "val",
    out: str | Path | None = None,
    *,
    size: int | None = None,
    confidence: float = CONFIDENCE,
    batch: int = 8,
    progress: bool = False,
    rows: str | None = None,
) -> EvaluationReport:
    """Measure the model in `run` on a dataset and write the report; see `eyas.evaluation.evaluate`."""
    check_numbers(confidence, batch)
    refuse_file(Path(run))
    index = load_dataset(data, split, rows=rows)
    check_truth(index)
    with load(run, thresholds=evaluation_thresholds, size=size) as detector:
        aligned, missing = align_classes(index, detector.classes)

        def detect(images: list[UInt8Array]) -> list[Detections]:
            return detector.predict(images, detector.thresholds)

        return evaluate_detector(
            detect,
            aligned,
            Path(out) if out else default_folder(Path(run), index),
            subject=_subject(Path(run), detector, missing),
            confidence=confidence,
            batch=batch,
            progress=progress,
        )


def default_folder(run: Path, index: DatasetIndex) -> Path:
    """Return where the report of a model on a dataset goes: `evaluation/DATA-SPLIT` in the model's folder."""
    return run / "evaluation" / f"{index.root.resolve().name}-{index.split}"


def _subject(run: Path, detector: Detector, missing: tuple[str, ...]) -> Subject:
    """Return the subject of the report: the model, how it runs, and the classes without metrics."""
    parts = (line.partition(":") for line in detector.describe().splitlines())
    facts = {"model": str(run), **{name.strip(): value.strip() for name, _, value in parts}}
    unlabelled = (
        f"The dataset does not label {len(missing)} of the model's {len(detector.classes)} classes, so they have no "
        f"metrics: {shorten(missing)}."
    )
    warnings = ((unlabelled,) if missing else ()) + tuple(filter(None, [size_note(trained_size(run), detector.input)]))
    return Subject(f"Evaluation of {run.resolve().name}", facts, warnings)


def evaluate_detector(
    detector: DetectsBatches,
    index: DatasetIndex,
    out: Path,
    *,
    subject: Subject | None = None,
    confidence: float = CONFIDENCE,
    batch: int = 8,
    progress: bool = False,
) -> EvaluationReport:
    """Run the detector over the dataset and write the report folder.

    Args:
        detector: called with lists of images. Its thresholds must be low (`eyas.types.EVALUATE`), and its labels in
            the order of `index.classes` (`eyas.evaluation.label_mapping.align_classes`).
        index: the truth.
        out: the report's folder; files of an earlier report in it are replaced.
        subject: what the report says it is about.
        confidence: the threshold for the confusion matrix and the worst images; the COCO numbers know none.
        batch: images a call of the detector.
        progress: show a progress bar on stderr.

    Raises:
        UserError: nothing to evaluate on, no readable image, or a folder that can't be written.
    """
    check_numbers(confidence, batch)
    check_truth(index)
    make_folder(out)
    run = predict_dataset(detector, index, batch=batch, progress=progress)
    analysis = analyse(index, run.predictions, confidence)
    told = subject or Subject()
    warnings = (*told.warnings, *run.warnings(index))
    rows = class_rows(analysis.result, analysis.curves, confidence)
    with writing(out):
        write_report(out, index, run, analysis, replace(told, warnings=warnings), rows)
    return EvaluationReport(analysis.result, out, rows, warnings, analysis.curves.best)


def check_numbers(confidence: float, batch: int) -> None:
    """Raise a UserError for a confidence threshold or a batch size that makes no sense."""
    if not 0.0 <= confidence <= 1.0:
        raise UserError(f"The confidence threshold is {confidence}.", expected="a number from 0 to 1")
    if batch < 1:
        raise UserError(f"The batch size is {batch}.", expected="a whole number from 1")
