"""From a model's folder and a dataset's to a report: what `eyas.evaluation` and the command line do."""

from __future__ import annotations

from pathlib import Path

from eyas.artifacts.hints import refuse_file
from eyas.data.formats import load_dataset
from eyas.data.index import DatasetIndex
from eyas.errors import shorten
from eyas.evaluation.coco import check_truth
from eyas.evaluation.label_mapping import align_classes
from eyas.evaluation.report import CONFIDENCE, Evaluation, Subject, check_numbers, evaluate_detector
from eyas.runtime.detector import Detector
from eyas.runtime.loading import load
from eyas.runtime.trained_size import size_note, trained_size
from eyas.types import Detections, UInt8Array, evaluation_thresholds


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
) -> Evaluation:
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
