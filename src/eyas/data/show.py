"""Contact sheets: many images with their boxes on one."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from eyas.data.index import DatasetIndex
from eyas.decode import read_image
from eyas.draw import class_colour, draw_boxes, grid, put_text
from eyas.errors import UserError
from eyas.types import FloatArray, IntArray, UInt8Array


def contact_sheet(
    images: Sequence[UInt8Array],
    boxes: Sequence[FloatArray],
    labels: Sequence[IntArray],
    classes: Sequence[str],
    *,
    scores: Sequence[FloatArray] | None = None,
    captions: Sequence[str] | None = None,
    columns: int = 0,
    side: int = 400,
) -> UInt8Array:
    """Return one image, uint8 [H, W, 3], with all the images and their boxes.

    Args:
        images: N images, uint8 [h, w, 3], of any sizes.
        boxes: N arrays, float32 [M, 4], xyxy pixels of their image.
        labels: N arrays, int64 [M].
        classes: class names.
        scores: N arrays, float32 [M], if the boxes are predictions.
        captions: N lines of text under the images.
        columns: images a row; 0 makes the sheet about square.
        side: longest side of each image on the sheet, in pixels.
    """
    tiles = []
    for i, image in enumerate(images):
        ratio = side / max(image.shape[:2])
        size = max(1, round(image.shape[1] * ratio)), max(1, round(image.shape[0] * ratio))
        method = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
        tile = np.asarray(cv2.resize(image, size, interpolation=method), dtype=np.uint8)
        tiles.append(
            draw_boxes(
                tile,
                np.asarray(boxes[i] * ratio, dtype=np.float32),
                [classes[int(label)] for label in labels[i]],
                None if scores is None else scores[i],
                colours=[class_colour(int(label)) for label in labels[i]],
            )
        )
    return grid(tiles, columns, captions=captions)


def dataset_sheet(
    index: DatasetIndex, *, count: int = 16, seed: int = 0, columns: int = 0, side: int = 400
) -> UInt8Array:
    """Return a contact sheet, uint8 [H, W, 3], of images of a split drawn at random.

    Args:
        index: the split.
        count: number of images, all if there are fewer.
        seed: another seed draws others.
        columns: images a row; 0 makes the sheet about square.
        side: longest side of each image on the sheet, in pixels.

    Raises:
        UserError: the split is empty or `count` below 1.
    """
    if count < 1 or not len(index):
        raise UserError(f"{count} of {len(index)} images can't be shown.", expected="at least one")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(index))[:count])
    images, boxes, labels, captions = [], [], [], []
    for i in (int(number) for number in chosen):
        its_boxes, its_labels, _ = index.truth(i)
        try:
            image = read_image(index.path(i))
        except UserError as error:
            image, its_boxes, its_labels = _notice(error.problem, side), its_boxes[:0], its_labels[:0]
        images.append(image)
        boxes.append(its_boxes)
        labels.append(its_labels)
        captions.append(index.path(i).name)
    return contact_sheet(images, boxes, labels, index.classes, captions=captions, columns=columns, side=side)


def _notice(text: str, side: int) -> UInt8Array:
    """Return a grey tile that says why there is no image."""
    tile = np.full((side * 3 // 4, side, 3), 60, np.uint8)
    size = max(9, side // 26)
    words, line, lines = text.split(), "", []
    for word in words:
        if len(line) + len(word) > 42:
            lines.append(line)
            line = ""
        line = f"{line} {word}".strip()
    for i, each in enumerate([*lines, line]):
        put_text(tile, each, 12, 30 + i * (size + 8), size, (255, 150, 150))
    return tile
