"""The columnar index of one split of a dataset: a few dense arrays, no Python object for an image or an annotation.

A million annotations take about 40 MB, loader workers share them, and a subset is a few array operations.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from eyas.data.paths import FileTable, offsets_of
from eyas.errors import UserError, shorten, suggest
from eyas.types import FloatArray, Id, IntArray

BoolArray = npt.NDArray[np.bool_]
SizeArray = npt.NDArray[np.int32]
MOST_DIGITS = 40  # an id that is a longer text is no number that anyone counts with


@dataclass(frozen=True, eq=False)
class DatasetIndex:
    """One split: N images, M boxes, C classes. Boxes are stored as in the source, faults included.

    Attributes:
        root: the dataset's folder.
        split: its name, "train", "val", ...
        classes: C class names, in label order.
        files: the N images' paths.
        sizes: int32 [N, 2], (height, width) in pixels, (0, 0) where unknown.
        image_ids: int64 [N], COCO's ids, or 1..N where the format has none. Where COCO's are no 64-bit integers, their
            ranks from 1: integers by size, then texts.
        offsets: int64 [N + 1], image i's boxes are the rows offsets[i]:offsets[i + 1].
        boxes: float32 [M, 4], xyxy pixels of the image.
        labels: int64 [M], 0..C-1.
        crowd: bool [M], True for a box that stands for a crowd.
        areas: float32 [M], the object's area where the format gives it (COCO), else the box's.
        category_ids: C ids of the classes in the source (COCO), else 1..C.
        id_texts: the N ids in COCO's file as JSON writes them, where they are no 64-bit integers; else None.
    """

    root: Path
    split: str
    classes: tuple[str, ...]
    files: FileTable
    sizes: SizeArray
    image_ids: IntArray
    offsets: IntArray
    boxes: FloatArray
    labels: IntArray
    crowd: BoolArray
    areas: FloatArray
    category_ids: tuple[Id, ...]
    id_texts: FileTable | None = None

    def __post_init__(self) -> None:
        """Check that the columns fit together; a mismatch is a fault of the code that built them."""
        images, rows = len(self.files), len(self.boxes)
        assert self.sizes.shape == (images, 2) and self.image_ids.shape == (images,)
        assert self.offsets.shape == (images + 1,) and int(self.offsets[-1]) == rows
        assert self.boxes.shape == (rows, 4) and self.labels.shape == self.crowd.shape == self.areas.shape == (rows,)
        assert len(self.category_ids) == len(self.classes)
        assert self.id_texts is None or len(self.id_texts) == images

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.files)

    def path(self, index: int) -> Path:
        """Return the path of image `index`."""
        return self.files.path(index)

    def rows(self, index: int) -> slice:
        """Return the rows of image `index` in the columns of boxes."""
        return slice(int(self.offsets[index]), int(self.offsets[index + 1]))

    def truth(self, index: int) -> tuple[FloatArray, IntArray, BoolArray]:
        """Return (boxes float32 [m, 4], labels int64 [m], crowd bool [m]) of image `index`; views, no copies."""
        rows = self.rows(index)
        return self.boxes[rows], self.labels[rows], self.crowd[rows]

    def image_of_row(self) -> IntArray:
        """Return int64 [M]: the index of the image that each box belongs to."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.offsets))

    def source_ids(self) -> list[Id]:
        """Return the N images' ids as the source has them."""
        if self.id_texts is None:
            return list(self.image_ids.tolist())
        return [json.loads(self.id_texts.name(i)) for i in range(len(self))]

    def subset(self, indices: Sequence[int] | IntArray) -> DatasetIndex:
        """Return the index of the images that `indices` picks, in that order; classes stay as they are."""
        picked = np.asarray(indices, dtype=np.int64)
        lengths = np.diff(self.offsets)[picked]
        offsets = offsets_of(lengths)
        rows = np.arange(int(offsets[-1])) + np.repeat(self.offsets[picked] - offsets[:-1], lengths)
        return dataclasses.replace(
            self,
            files=self.files.take(picked),
            sizes=self.sizes[picked],
            image_ids=self.image_ids[picked],
            id_texts=None if self.id_texts is None else self.id_texts.take(picked),
            offsets=offsets,
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            crowd=self.crowd[rows],
            areas=self.areas[rows],
        )

    def keep_rows(self, mask: BoolArray) -> DatasetIndex:
        """Return the index with only the boxes where `mask` (bool [M]) is True; every image stays."""
        lengths = np.bincount(self.image_of_row()[mask], minlength=len(self)).astype(np.int64)
        return dataclasses.replace(
            self,
            offsets=offsets_of(lengths),
            boxes=self.boxes[mask],
            labels=self.labels[mask],
            crowd=self.crowd[mask],
            areas=self.areas[mask],
        )

    def with_classes(self, classes: Sequence[str], *, drop: bool = False) -> DatasetIndex:
        """Return the index with its labels renumbered, by name, to the order of `classes`.

        Args:
            classes: the class names wanted, for example those of a trained model.
            drop: leave out boxes of a class that is not among `classes`, instead of refusing them.

        Raises:
            UserError: a box has a class that is not among `classes`, or the two have no class in common.
        """
        wanted = tuple(classes)
        if wanted == self.classes:
            return self
        place = {name: i for i, name in enumerate(wanted)}
        lookup = np.array([place.get(name, -1) for name in self.classes] or [-1], dtype=np.int64)
        source_ids = dict(zip(self.classes, self.category_ids, strict=True))
        used = np.unique(self.labels)
        strange = [self.classes[int(i)] for i in used if lookup[i] < 0]
        if strange and (not drop or len(strange) == len(used)):
            raise UserError(
                f"The split '{self.split}' has boxes of unexpected classes: "
                f"{shorten(strange)}{suggest(strange[0], wanted)}.",
                expected="classes among " + shorten(wanted, 8),
                where=str(self.root),
                fix="use a dataset with the same class names",
            )
        labels = lookup[self.labels]
        kept = self.keep_rows(labels >= 0)
        spare = max((number for number in source_ids.values() if isinstance(number, int)), default=0)
        ids = tuple(source_ids.get(name, spare + 1 + i) for i, name in enumerate(wanted))
        return dataclasses.replace(kept, classes=wanted, labels=labels[labels >= 0], category_ids=ids)


def build_index(
    *,
    root: Path,
    split: str,
    classes: Sequence[str],
    names: Sequence[str],
    sizes: npt.ArrayLike,
    images: npt.ArrayLike,
    boxes: npt.ArrayLike,
    labels: npt.ArrayLike,
    crowd: npt.ArrayLike | None = None,
    areas: npt.ArrayLike | None = None,
    image_ids: Sequence[Id] | IntArray | None = None,
    category_ids: Sequence[Id] | None = None,
) -> DatasetIndex:
    """Return the index made from columns in any order of rows.

    Args:
        root: the dataset's folder.
        split: the split's name.
        classes: class names in label order.
        names: the N images, relative to `root` or absolute.
        sizes: [N, 2] (height, width), zeros where unknown.
        images: [M], the image that each box belongs to; rows of one image keep their order.
        boxes: [M, 4] xyxy pixels.
        labels: [M].
        crowd: [M], False if None.
        areas: [M], NaN where unknown; the boxes' own areas there and if None.
        image_ids: [N], all different; 1..N if None.
        category_ids: [C], 1..C if None.
    """
    image_column = np.asarray(images, dtype=np.int64)
    order = np.argsort(image_column, kind="stable")
    box_column = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)[order]
    own_areas = np.prod(np.maximum(box_column[:, 2:] - box_column[:, :2], 0), axis=1)
    given = np.full(len(order), np.nan) if areas is None else np.asarray(areas, dtype=np.float64)[order]
    ids, id_texts = id_columns(np.arange(1, len(names) + 1) if image_ids is None else image_ids)
    flags = np.zeros(len(order), bool) if crowd is None else np.asarray(crowd, dtype=bool)[order]
    return DatasetIndex(
        root=root,
        split=split,
        classes=tuple(classes),
        files=FileTable.build(root, names),
        sizes=np.asarray(sizes, dtype=np.int32).reshape(-1, 2),
        image_ids=ids,
        id_texts=id_texts,
        offsets=offsets_of(np.bincount(image_column, minlength=len(names))),
        boxes=box_column.astype(np.float32),
        labels=np.asarray(labels, dtype=np.int64)[order],
        crowd=flags,
        areas=np.where(np.isfinite(given), given, own_areas).astype(np.float32),
        category_ids=tuple(category_ids) if category_ids is not None else tuple(range(1, len(classes) + 1)),
    )


def id_columns(ids: Sequence[Id] | IntArray) -> tuple[IntArray, FileTable | None]:
    """Return `DatasetIndex.image_ids` and `DatasetIndex.id_texts` for ids that are all different."""
    if isinstance(ids, np.ndarray):
        return np.asarray(ids, np.int64), None
    if all(isinstance(each, int) and -(2**63) <= each < 2**63 for each in ids):
        return np.array(ids, np.int64), None
    ranks = np.empty(len(ids), np.int64)
    ranks[sorted(range(len(ids)), key=lambda row: id_order(ids[row]))] = np.arange(1, len(ids) + 1)
    return ranks, FileTable.build(Path(), [json.dumps(each) for each in ids])


def id_order(value: Id) -> tuple[bool, int, str]:
    """Return what ids are sorted by: integers by size, then texts that are whole numbers, then other texts."""
    if isinstance(value, int):
        return False, value, ""
    return True, int(value) if value.isdecimal() and len(value) <= MOST_DIGITS else 0, value
