"""The images that a detector gets most wrong, truth beside prediction, on one sheet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from eyas.data.index import DatasetIndex
from eyas.decode import read_image
from eyas.draw import Colour, draw_boxes, grid, write_png
from eyas.errors import UserError
from eyas.evaluation.matching import Matches, errors_per_image
from eyas.evaluation.predictions import Predictions
from eyas.types import FloatArray, UInt8Array

RIGHT: Colour = (64, 200, 96)
WRONG: Colour = (255, 72, 72)
NEITHER: Colour = (170, 170, 170)  # crowds, and detections inside them
TILE = 460  # pixels of an image's long side on the sheet


@dataclass(frozen=True)
class WorstImage:
    """An image and how many objects were missed and how many detections are false in it."""

    image: int
    missed: int
    false: int


def worst_images(
    index: DatasetIndex, predictions: Predictions, matches: Matches, confidence: float, limit: int = 8
) -> tuple[WorstImage, ...]:
    """Return the images with the most missed objects and false detections, worst first; none without an error."""
    missed, false = errors_per_image(index, predictions, matches, confidence)
    errors = missed + false
    order = np.argsort(-errors, kind="stable")[:limit]
    return tuple(WorstImage(int(i), int(missed[i]), int(false[i])) for i in order if errors[i])


def draw_worst(
    index: DatasetIndex,
    predictions: Predictions,
    matches: Matches,
    confidence: float,
    images: tuple[WorstImage, ...],
    path: Path,
) -> None:
    """Write the contact sheet as PNG: two images a row, each as truth and prediction side by side.

    Green are objects that were found and detections that are right, red those missed and false, grey crowds.
    """
    tiles: list[UInt8Array] = []
    captions: list[str] = []
    for worst in images:
        pixels, scale = _tile(index, worst.image)
        name = Path(index.files.name(worst.image)).name
        kept = (predictions.images == worst.image) & (predictions.scores >= confidence)
        tiles += [
            _truth_tile(index, worst.image, pixels, scale, matches.truth[kept]),
            _prediction_tile(index, predictions[kept], pixels, scale, _colours(matches, kept)),
        ]
        captions += [
            f"{name}: ground truth, {worst.missed} missed",
            f"detected at {confidence:.2f}, {worst.false} false",
        ]
    if not tiles:
        tiles, captions = [np.full((120, TILE, 3), 255, np.uint8)], ["no image has errors"]
    sheet = grid(tiles, 4 if len(tiles) > 2 else 0, captions=captions)
    write_png(sheet, path)


def _tile(index: DatasetIndex, i: int) -> tuple[UInt8Array, float]:
    """Return the image shrunk or grown to the sheet's tile size, and the scale; grey where it can't be read."""
    try:
        image = read_image(index.path(i))
    except UserError:
        height, width = (int(size) or TILE for size in index.sizes[i])
        image = np.full((height, width, 3), 90, np.uint8)
    scale = TILE / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=method), np.uint8), scale


def _truth_tile(
    index: DatasetIndex, i: int, image: UInt8Array, scale: float, found: npt.NDArray[np.int64]
) -> UInt8Array:
    boxes, labels, crowd = index.truth(i)
    rows = np.arange(index.offsets[i], index.offsets[i + 1])
    colours = [
        NEITHER if is_crowd else RIGHT if hit else WRONG
        for is_crowd, hit in zip(crowd, np.isin(rows, found), strict=True)
    ]
    return draw_boxes(image, _scaled(boxes, scale), [index.classes[label] for label in labels], colours=colours)


def _prediction_tile(
    index: DatasetIndex, found: Predictions, image: UInt8Array, scale: float, colours: list[Colour]
) -> UInt8Array:
    names = [index.classes[label] for label in found.labels]
    return draw_boxes(image, _scaled(found.boxes, scale), names, found.scores, colours=colours)


def _colours(matches: Matches, kept: npt.NDArray[np.bool_]) -> list[Colour]:
    return [
        NEITHER if ignored else RIGHT if truth >= 0 else WRONG
        for truth, ignored in zip(matches.truth[kept], matches.ignored[kept], strict=True)
    ]


def _scaled(boxes: FloatArray, scale: float) -> FloatArray:
    return np.asarray(boxes * np.float32(scale), dtype=np.float32)
