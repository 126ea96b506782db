"""Small datasets and images that the tests of loading share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import torch

from eyas.data.augment import affine
from eyas.data.augment.affine import Move, cut
from eyas.data.augment.augmenter import boxes_of, draw
from eyas.data.augment.config import AugmentPolicy
from eyas.data.augment.plan import Piece, Plan
from eyas.data.augment.truth import moved, truth_of
from eyas.data.index import DatasetIndex
from eyas.data.loading.batch import Batch
from eyas.data.loading.source import Source
from eyas.data.paths import FileTable
from eyas.types import FloatArray, InputSpec, IntArray, UInt8Array


def textured(seed: int, height: int = 60, width: int = 80) -> UInt8Array:
    """Return a smooth random image."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def dataset(
    folder: Path, num: int, *, same: bool = False, sizes: Sequence[tuple[int, int]] = ((60, 80),)
) -> DatasetIndex:
    """Write `num` JPEGs of the given sizes in turn and return their index, two boxes and one crowd each.

    Args:
        folder: where the images go.
        num: how many.
        same: all images are one and the same.
        sizes: (height, width) of the images.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names, boxes, shapes = [], [], []
    for i in range(num):
        height, width = sizes[i % len(sizes)]
        image = textured(0 if same else i, height, width)
        names.append(f"{i:04d}.jpg")
        (folder / names[-1]).write_bytes(simplejpeg.encode_jpeg(image, quality=90))
        rng = np.random.default_rng(0 if same else i)
        corner = rng.uniform(0, 0.4, (3, 2))
        boxes.append(
            np.concatenate([corner, corner + rng.uniform(0.3, 0.5, (3, 2))], axis=1) * np.tile([width, height], 2)
        )
        shapes.append((height, width))
    return index_of(folder, names, np.concatenate(boxes).astype(np.float32), shapes, boxes_each=3)


def index_of(
    folder: Path, names: Sequence[str], boxes: FloatArray, shapes: Sequence[tuple[int, int]], boxes_each: int
) -> DatasetIndex:
    """Return an index with the same number of boxes for each image, the third of each (if any) a crowd."""
    place = np.arange(len(boxes)) % max(boxes_each, 1)
    return DatasetIndex(
        root=folder,
        split="train",
        classes=("a", "b", "c"),
        files=FileTable.build(folder, names),
        sizes=np.array(shapes, np.int32).reshape(-1, 2),
        image_ids=np.arange(len(names)),
        offsets=np.arange(len(names) + 1) * boxes_each,
        boxes=boxes,
        labels=place % 3,
        crowd=place == 2,
        areas=np.zeros(len(boxes), np.float32),
        category_ids=(1, 2, 3),
    )


def rectangle(
    box: tuple[int, int, int, int], height: int, width: int, colour: tuple[int, int, int] = (255, 255, 255)
) -> Source:
    """Return a black image with one rectangle, which is its only box."""
    image = np.zeros((height, width, 3), np.uint8)
    x0, y0, x1, y1 = box
    image[y0:y1, x0:x1] = colour
    return Source(image, np.array([box], np.float32), np.array([0]), (height, width))


def extent(mask: np.ndarray) -> FloatArray:
    """Return the box (xyxy, pixel edges) around the True pixels of a mask [H, W] that has some."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def drawn(
    plan: Plan[Source], canvas: UInt8Array, policy: AugmentPolicy, pad_value: int = 0
) -> tuple[FloatArray, IntArray]:
    """Draw a sample into a canvas, uint8 [H, W, 3] with sides that are multiples of 32; return its boxes and labels."""
    spec = InputSpec(*canvas.shape[:2], margin=0, pad_value=pad_value)
    draw(plan, canvas, np.empty_like(canvas), spec, policy)
    truth = truth_of([plan], boxes_of(plan), spec, policy)
    return truth.boxes, truth.labels


def paste(source: Source, move: Move, canvas: UInt8Array, pad_value: int) -> FloatArray:
    """Draw one moved image into a canvas, uint8 [h, w, 3], and return its boxes there, not clipped."""
    height, width = canvas.shape[:2]
    piece = Piece(source, (0, 0, width, height), cut(source.height, source.width, move, (height, width)))
    affine.paste(source, piece.cut, canvas, pad_value)
    return moved([piece], source.boxes, np.zeros(len(source.boxes), np.int64))


def broken_dataset(folder: Path, num: int, broken: list[int]) -> DatasetIndex:
    """Return a dataset of which some files are truncated, empty or missing."""
    made = dataset(folder, num)
    for turn, i in enumerate(broken):
        path = made.path(i)
        if turn % 3 == 2:
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[: 300 * (turn % 3)])
    return made


def same(one: Batch, other: Batch) -> bool:
    """Return whether two batches are equal to the last bit."""
    return all(torch.equal(a, b) for a, b in zip(one.tensors(), other.tensors(), strict=True))


def all_same(ones: list[Batch], others: list[Batch]) -> bool:
    """Return whether two epochs are equal to the last bit."""
    return len(ones) == len(others) and all(same(a, b) for a, b in zip(ones, others, strict=True))
