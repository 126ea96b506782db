"""One scorer for all nets of the race: their detections as files, Eyas's COCO metric on the data set's own truth.

    python -m benchmarks.race_score RUN DATA SPLIT OUT.json cpu     # the detections of a run of Eyas

A file holds the names of the classes and rows of an image's file name, left, top, right, bottom in its original pixels,
score and class. All nets give up to 300 detections an image from a score of 0.001 on; COCO counts the best 100.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from eyas.data.formats import load_dataset
from eyas.errors import UserError
from eyas.evaluation.coco import evaluate_predictions
from eyas.evaluation.label_mapping import align_classes
from eyas.evaluation.predictions import Predictions
from eyas.types import Thresholds, evaluation_thresholds

LEAST_SCORE = 0.001


def thresholds(own: Thresholds) -> Thresholds:
    """Return the thresholds of Eyas's detections: as it evaluates, from the peer's least score on."""
    return replace(evaluation_thresholds(own), confidence=LEAST_SCORE)


def detect(run: Path, data: Path, split: str, out: Path, device: str) -> None:
    """Write the detections of a run of Eyas."""
    from eyas.evaluation.predictions import predict_dataset
    from eyas.runtime.loading import load

    index = load_dataset(data, split)
    with load(run, thresholds=thresholds, device=device) as detector:
        found = predict_dataset(lambda images: detector.predict(images, detector.thresholds), index)
        classes = detector.classes
    if found.unreadable:
        raise UserError(f"{len(found.unreadable)} images can't be read.", where=str(data))
    columns = zip(found.predictions.images, found.predictions.boxes.tolist(), found.predictions.scores.tolist(),
                  found.predictions.labels.tolist(), strict=True)  # fmt: skip
    rows = [[index.path(int(image)).name, *box, value, label] for image, box, value, label in columns]
    out.write_text(json.dumps({"names": dict(enumerate(classes)), "rows": rows}), encoding="utf-8")


def score(found: Path, data: Path, split: str) -> dict[str, Any]:
    """Return AP and AP50 of the detections in a file, 0 to 1, and the net's own numbers where it gives any.

    Raises:
        UserError: it is about other images or classes.
    """
    answer = json.loads(found.read_text(encoding="utf-8"))
    index, missing = align_classes(load_dataset(data, split), tuple(answer["names"].values()))
    if missing:
        raise UserError(f"The detections have classes that the data set has not: {', '.join(missing)}.")
    number_of = {index.path(i).name: i for i in range(len(index))}
    if len(number_of) != len(index):
        raise UserError("Two images of a split have the same file name.", where=str(data))
    rows = answer["rows"]
    strange = {row[0] for row in rows} - number_of.keys()
    if strange:
        raise UserError(f"The detections are about {len(strange)} images that the split has not.", where=str(found))
    numbers = np.array([row[1:] for row in rows], np.float64).reshape(-1, 6)
    images = np.array([number_of[row[0]] for row in rows], np.int64)
    order = np.argsort(images, kind="stable")
    predictions = Predictions(
        images[order],
        numbers[order, :4].astype(np.float32),
        numbers[order, 4].astype(np.float32),
        numbers[order, 5].astype(np.int64),
    )
    result = evaluate_predictions(index, predictions)
    own = {"own_AP": answer["AP"], "own_AP50": answer["AP50"]} if "AP" in answer else {}
    return {"AP": result.ap, "AP50": result.ap50, "images": len(index), "detections": len(predictions), **own}


if __name__ == "__main__":
    detect(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), sys.argv[5])
