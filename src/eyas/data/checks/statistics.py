"""The numbers of a split: how many images, boxes, boxes of each class and boxes of each size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eyas.data.augment.config import AugmentPolicy
from eyas.data.checks.usable import measured_boxes, trained_boxes
from eyas.data.index import DatasetIndex, SizeArray

SMALL, MEDIUM = 32**2, 96**2  # COCO's limits, in square pixels


@dataclass(frozen=True)
class SplitStatistics:
    """The numbers of one split.

    Attributes:
        images: number of images.
        background: images without any box.
        boxes: number of boxes.
        crowds: boxes that stand for a crowd.
        most_boxes: boxes of the fullest image.
        class_boxes, class_images: class -> boxes of it, images with it.
        sizes: boxes that are small, medium and large by COCO's limits, in the images as they are.
        train_sizes: the same after the image is fitted to the training size.
        trained: boxes that training at that size can see, with the default augmentation.
        left_out: why it never sees the others -> how many.
        measured: boxes that evaluation looks for.
        tiny: boxes with a side below 4 pixels at the training size.
        side_percentiles: the 5th, 25th, 50th, 75th and 95th percentile of the root of the box area, at that size.
        image_sizes: [smallest, median, largest] of the image's longest side in pixels.
    """

    images: int
    background: int
    boxes: int
    crowds: int
    most_boxes: int
    class_boxes: dict[str, int]
    class_images: dict[str, int]
    sizes: tuple[int, int, int]
    train_sizes: tuple[int, int, int]
    trained: int
    left_out: dict[str, int]
    measured: int
    tiny: int
    side_percentiles: tuple[float, ...]
    image_sizes: tuple[int, int, int]


def split_statistics(index: DatasetIndex, train_size: int, sizes: SizeArray | None = None) -> SplitStatistics:
    """Return the numbers of a split.

    Args:
        index: the split.
        train_size: side of the network's input in pixels.
        sizes: int32 [N, 2] true image sizes, if better known than the index's.
    """
    known = index.sizes if sizes is None else np.where(sizes > 0, sizes, index.sizes)
    counts = np.diff(index.offsets)
    owner = index.image_of_row()
    longest = known.max(axis=1, initial=0).astype(np.float64)
    scale = train_size / np.maximum(longest, 1)[owner]
    shape = np.maximum(index.boxes[:, 2:] - index.boxes[:, :2], 0) * scale[:, None]
    sides = np.sqrt(shape.prod(axis=1))
    num_classes = len(index.classes)
    pairs = np.unique(owner * num_classes + index.labels)
    measured = longest[longest > 0]
    usable = trained_boxes(index, (train_size, train_size), AugmentPolicy(), sizes=known)
    percentiles = np.percentile(sides, [5, 25, 50, 75, 95]) if len(sides) else np.zeros(5)
    return SplitStatistics(
        images=len(index),
        background=int((counts == 0).sum()),
        boxes=len(index.boxes),
        crowds=int(index.crowd.sum()),
        most_boxes=int(counts.max(initial=0)),
        class_boxes=_by_class(index, np.bincount(index.labels, minlength=num_classes)),
        class_images=_by_class(index, np.bincount(pairs % num_classes, minlength=num_classes)),
        sizes=_size_counts(index.areas),
        train_sizes=_size_counts(sides**2),
        trained=int(usable.kept.sum()),
        left_out=dict(usable.left_out),
        measured=int(measured_boxes(index, known).kept.sum()),
        tiny=int((shape.min(axis=1, initial=np.inf) < 4).sum()),
        side_percentiles=tuple(round(float(value), 1) for value in percentiles),
        image_sizes=(
            (int(measured.min()), int(np.median(measured)), int(measured.max())) if len(measured) else (0, 0, 0)
        ),
    )


def _by_class(index: DatasetIndex, counts: npt.NDArray[np.integer]) -> dict[str, int]:
    return {name: int(count) for name, count in zip(index.classes, counts, strict=True)}


def _size_counts(areas: npt.NDArray[np.floating]) -> tuple[int, int, int]:
    small, not_large = int((areas < SMALL).sum()), int((areas < MEDIUM).sum())
    return small, not_large - small, len(areas) - not_large
