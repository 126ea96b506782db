"""Sizes of images: what the files say against what the annotations were made for, and one rule where they differ."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt

from eyas.data.index import BoolArray, DatasetIndex, SizeArray
from eyas.decode import read_size
from eyas.errors import UserError
from eyas.progress import track
from eyas.read_ahead import ahead
from eyas.types import IntArray

Float64Array = npt.NDArray[np.float64]
_CHUNK, _READERS = 64, 16  # images a task, and threads: disks far away answer late, but many at once


class SizeState(IntEnum):
    """How an image's size and the size in its annotations compare."""

    FITS = 0  # they are the same, or one of them is not known
    SCALED = 1  # another size of the same shape: boxes can be scaled along
    TURNED = 2  # width and height have changed places: the annotations ignore the image's orientation
    OTHER = 3  # another shape: cropped, padded or another image


@dataclass(frozen=True)
class SizeCheck:
    """The sizes of N images compared.

    Attributes:
        sizes: int32 [N, 2], (height, width) as the files have it, zeros where one can't be read.
        states: int64 [N], a `SizeState` each.
    """

    sizes: SizeArray
    states: IntArray

    def which(self, *states: SizeState) -> IntArray:
        """Return int64, the images in any of the states."""
        return np.flatnonzero(np.isin(self.states, states)).astype(np.int64)


def check_sizes(index: DatasetIndex) -> SizeCheck:
    """Return how the images' sizes compare with the index's; only headers are read, by several threads."""
    paths = list(index.files)
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    read = track(ahead(_read, chunks, _READERS), len(chunks), "reading image sizes")
    found = [size for sizes in read for size in sizes]
    sizes: SizeArray = np.array(found, np.int32).reshape(-1, 2)
    return SizeCheck(sizes, compare(index.sizes, sizes))


def _read(paths: Sequence[Path]) -> list[tuple[int, int]]:
    """Return each image's (height, width), zeros for those that can't be read."""
    sizes = []
    for path in paths:
        try:
            sizes.append(read_size(path))
        except UserError:
            sizes.append((0, 0))
    return sizes


def compare(annotated: SizeArray, sizes: SizeArray) -> IntArray:
    """Return a `SizeState` an image, int64 [N], of two columns of (height, width), int32 [N, 2]; zeros: not known."""
    said, real = annotated.astype(np.float64), sizes.astype(np.float64)
    differ = (said != real).any(axis=1) & (said > 0).all(axis=1) & (real > 0).all(axis=1)
    swapped = real[:, ::-1]
    turned = (said == swapped).all(axis=1) | (~_one_shape(said, real) & _one_shape(said, swapped))
    states = np.where(turned, SizeState.TURNED, np.where(_one_shape(said, real), SizeState.SCALED, SizeState.OTHER))
    return np.where(differ, states, SizeState.FITS).astype(np.int64)


def _one_shape(one: Float64Array, other: Float64Array) -> BoolArray:
    """Return whether one factor takes each size to the other, but for rounding, by whichever rule, of the smaller."""

    def within(before: Float64Array, after: Float64Array) -> BoolArray:
        base = np.maximum(before, 1)
        low, high = ((after - 1) / base).max(axis=1), ((after + 1) / base).min(axis=1)
        return np.asarray(low < high)

    return within(one, other) | within(other, one)


def fit_to_images(index: DatasetIndex) -> DatasetIndex:
    """Return the index with the sizes that the image files have, and boxes scaled along where they were for others.

    Raises:
        UserError: images have another shape than their annotations say, or are turned.
    """
    check = check_sizes(index)
    refuse(index, check)
    unread = np.flatnonzero((check.sizes <= 0).any(axis=1))
    if len(unread):
        names = [index.files.name(int(i)) for i in unread[:3]]
        rest = f" and {len(unread) - 3} more" if len(unread) > 3 else ""
        warnings.warn(
            f"{len(unread)} of {len(index)} images of '{index.split}' are missing or can't be read: "
            f"{', '.join(names)}{rest}. 'eyas data check' shows details.",
            stacklevel=2,
        )
    scaled = check.which(SizeState.SCALED)
    if len(scaled):
        warnings.warn(
            f"{len(scaled)} of {len(index)} images of '{index.split}' differ in size, but not in aspect ratio, from "
            f"their annotations; their boxes are scaled: {_first(index, check, scaled)}.",
            stacklevel=2,
        )
    return apply(index, check)


def refuse(index: DatasetIndex, check: SizeCheck) -> None:
    """Raise a UserError if boxes can't be brought to their images."""
    turned, other = check.which(SizeState.TURNED), check.which(SizeState.OTHER)
    if not len(turned) and not len(other):
        return
    problems = []
    if len(other):
        problems.append(
            f"{len(other)} of {len(index)} images of '{index.split}' differ in aspect ratio from their annotations, "
            f"so their boxes are misplaced: {_first(index, check, other)}."
        )
    if len(turned):
        problems.append(
            f"{len(turned)} of {len(index)} images of '{index.split}' are rotated: width and height are swapped with "
            f"respect to their annotations, which ignore the images' EXIF orientation: {_first(index, check, turned)}."
        )
    raise UserError(
        " ".join(problems),
        where=str(index.root),
        expected="images as they were labelled, or smaller or larger ones of the same aspect ratio",
        fix="restore the images that were labelled, or export the labels again; 'eyas data check' lists all of them",
    )


def _first(index: DatasetIndex, check: SizeCheck, images: IntArray) -> str:
    rest = f" and {len(images) - 3} more" if len(images) > 3 else ""
    return "; ".join(describe(index, check, int(i)) for i in images[:3]) + rest


def describe(index: DatasetIndex, check: SizeCheck, image: int) -> str:
    """Return "a.jpg is 20x10, annotated as 40x20"."""
    (height, width), (said_height, said_width) = check.sizes[image], index.sizes[image]
    return f"{index.files.name(image)} is {width}x{height}, annotated as {said_width}x{said_height}"


def apply(index: DatasetIndex, check: SizeCheck) -> DatasetIndex:
    """Return the index with all sizes that are known now, boxes scaled where the shape is the same."""
    known = (check.sizes > 0).all(axis=1) & (np.isin(check.states, (SizeState.FITS, SizeState.SCALED)))
    return rescale(index, np.where(known[:, None], check.sizes, index.sizes).astype(np.int32))


def rescale(index: DatasetIndex, sizes: SizeArray) -> DatasetIndex:
    """Return the index for images of other sizes, int32 [N, 2]: boxes and areas are scaled along.

    Where the index had no size, the boxes stay.
    """
    if (index.sizes == sizes).all():
        return index
    before = np.where(index.sizes > 0, index.sizes, sizes)
    ratio = (sizes / np.maximum(before, 1).astype(np.float64))[index.image_of_row()]
    return dataclasses.replace(
        index,
        sizes=sizes,
        boxes=(index.boxes * ratio[:, [1, 0, 1, 0]]).astype(np.float32),
        areas=(index.areas * ratio.prod(axis=1)).astype(np.float32),
    )
