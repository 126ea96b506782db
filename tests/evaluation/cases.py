"""Hand-made and random datasets for the tests of evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from eyas.data.index import DatasetIndex, build_index
from eyas.evaluation.predictions import Predictions

Row = tuple[int, int, tuple[float, float, float, float]]  # image, label, xyxy


def truth_of(
    rows: Sequence[Row],
    images: int,
    classes: Sequence[str] = ("cat", "dog"),
    crowd: Sequence[bool] | None = None,
    image_ids: npt.ArrayLike | None = None,
    root: Path = Path("truth"),
) -> DatasetIndex:
    """Return the index of `images` images of 640 x 480 with the given boxes."""
    return build_index(
        root=root,
        split="val",
        classes=classes,
        names=[f"{i}.jpg" for i in range(images)],
        sizes=[(480, 640)] * images,
        images=[row[0] for row in rows],
        boxes=[row[2] for row in rows],
        labels=[row[1] for row in rows],
        crowd=crowd,
        image_ids=image_ids,
    )


def found_of(rows: Sequence[tuple[int, int, tuple[float, float, float, float], float]]) -> Predictions:
    """Return predictions of rows (image, label, xyxy, score)."""
    return Predictions(
        np.array([row[0] for row in rows], np.int64),
        np.array([row[2] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[3] for row in rows], np.float32),
        np.array([row[1] for row in rows], np.int64),
    )


def random_case(seed: int, images: int = 60, classes: int = 6) -> tuple[DatasetIndex, Predictions]:
    """Return a realistic random case: crowds, areas below the boxes', images without truth or without predictions,
    a class without truth, one without predictions, equal scores, unordered image ids, more than 100 detections."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(6, images) * (rng.random(images) > 0.15)
    owner = np.repeat(np.arange(images), counts)
    size = np.exp(rng.uniform(np.log(6), np.log(300), (len(owner), 2)))
    corner = rng.uniform(0, 400, (len(owner), 2))
    boxes = np.concatenate([corner, corner + size], axis=1).astype(np.float32)
    labels = rng.integers(0, classes - 1, len(owner))  # the last class has no truth
    index = build_index(
        root=Path("truth"),
        split="val",
        classes=[f"class {i}" for i in range(classes)],
        names=[f"{i}.jpg" for i in range(images)],
        sizes=[(480, 640)] * images,
        images=owner,
        boxes=boxes,
        labels=labels,
        crowd=rng.random(len(owner)) < 0.05,
        areas=size.prod(axis=1) * rng.uniform(0.4, 1.0, len(owner)),
        image_ids=rng.permutation(10 * images)[:images],
    )
    return index, _noisy(index, rng)


def _noisy(index: DatasetIndex, rng: np.random.Generator) -> Predictions:
    """Return predictions that hit most of the truth, some twice, beside many false ones."""
    hits = np.flatnonzero(rng.random(len(index.labels)) < 0.8)
    hits = np.concatenate([hits, hits[::4]])
    size = (index.boxes[hits, 2:] - index.boxes[hits, :2]).repeat(2, axis=1)
    near = index.boxes[hits] + rng.normal(0, 0.035, (len(hits), 4)) * size
    false = rng.uniform(0, 400, (len(index) * 4, 4))
    false[:, 2:] = false[:, :2] + rng.uniform(5, 250, (len(false), 2))
    crowded = rng.uniform(0, 400, (150, 4))
    crowded[:, 2:] = crowded[:, :2] + 40
    boxes = np.concatenate([near, false, crowded]).astype(np.float32)
    images = np.concatenate(
        [index.image_of_row()[hits], rng.integers(0, len(index), len(false)), np.full(len(crowded), 3)]
    )
    wrong = rng.random(len(hits)) < 0.1
    labels = np.concatenate(
        [np.where(wrong, 0, index.labels[hits]), rng.integers(1, len(index.classes), len(false)), np.full(150, 2)]
    )
    labels[labels == 1] = 2  # class 1 is never predicted
    raw = np.where(np.arange(len(boxes)) < len(hits), rng.beta(5, 2, len(boxes)), rng.beta(2, 4, len(boxes)))
    scores = np.round(raw, 2).astype(np.float32)  # two digits: many equal scores
    found = Predictions(images.astype(np.int64), boxes, scores, labels.astype(np.int64))
    return found[(images % 11) != 5]  # some images have no prediction
