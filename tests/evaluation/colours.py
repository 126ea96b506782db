"""A dataset of coloured rectangles on disk, and a detector that finds them by their colour: a whole chain to test.

The detector is the real one, with its letterboxing, suppression and thresholds; only its network is replaced.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from eyas.runtime.detector import Detector
from eyas.types import EVALUATE, FloatArray, InputSpec, UInt8Array

COLOURS: Mapping[str, tuple[int, int, int]] = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}
SPEC = InputSpec(height=128, width=128, margin=0)
Rectangle = tuple[str, int, int, int, int]  # colour, left, top, width, height in pixels

# At most one rectangle of a colour an image: the "network" takes all pixels of a colour for one object.
IMAGES: tuple[tuple[Rectangle, ...], ...] = (
    (("red", 8, 8, 32, 40), ("green", 60, 20, 48, 48)),
    (("blue", 16, 24, 56, 30),),
    (("red", 80, 60, 24, 24), ("blue", 4, 4, 40, 20), ("green", 52, 64, 24, 28)),
    (),
    (("green", 20, 10, 90, 70),),
)


def write_dataset(
    root: Path, classes: Sequence[str] = tuple(COLOURS), images: Sequence[Sequence[Rectangle]] = IMAGES
) -> Path:
    """Write a COCO dataset of 128 x 96 images with one split, "val"; category ids start at 10. Return `root`."""
    (root / "val").mkdir(parents=True)
    annotations = []
    for i, rectangles in enumerate(images):
        image = np.full((96, 128, 3), 128, np.uint8)
        for name, left, top, width, height in rectangles:
            image[top : top + height, left : left + width] = COLOURS[name]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 100 + i,
                    "category_id": 10 + list(classes).index(name),
                    "bbox": [left, top, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                }
            )
        cv2.imwrite(str(root / "val" / f"{i}.png"), image[:, :, ::-1])
    truth = {
        "images": [{"id": 100 + i, "file_name": f"{i}.png", "height": 96, "width": 128} for i in range(len(images))],
        "categories": [{"id": 10 + i, "name": name} for i, name in enumerate(classes)],
        "annotations": annotations,
    }
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_val.json").write_text(json.dumps(truth), encoding="utf-8")
    return root


class ColourSession:
    """A "network" with a box for each class: around the pixels of its colour, with the score 0.9 for that class.

    Args:
        classes: the classes' names, in label order; one that is no colour is never found.
        blind: colours that it does not see.
    """

    name = "colours"
    description = "finds rectangles by their colour"

    def __init__(self, classes: Sequence[str], blind: Sequence[str] = ()) -> None:
        self.classes = tuple(classes)
        self.blind = frozenset(blind)
        self.batches: list[int] = []

    def run(self, images: UInt8Array) -> tuple[FloatArray, FloatArray]:
        """Return boxes [N, C, 4] and scores [N, C, C]."""
        self.batches.append(len(images))
        count = len(self.classes)
        boxes = np.zeros((len(images), count, 4), np.float32)
        scores = np.zeros((len(images), count, count), np.float32)
        for n, image in enumerate(images.astype(np.int16)):
            for label, name in enumerate(self.classes):
                if name in self.blind or name not in COLOURS:
                    continue
                rows, columns = np.nonzero((np.abs(image - np.array(COLOURS[name])) < 40).all(axis=2))
                if len(rows):
                    boxes[n, label] = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                    scores[n, label, label] = 0.9
        return boxes, scores

    def close(self) -> None:
        """Hold nothing."""


def colour_detector(classes: Sequence[str] = tuple(COLOURS), blind: Sequence[str] = ()) -> Detector:
    """Return a real detector around a `ColourSession`."""
    return Detector(ColourSession(classes, blind), classes, SPEC, EVALUATE)
