"""Decoded images for the augmentations, with a memory of the last ones that never changes what is made of them."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from eyas import decode
from eyas.data.index import DatasetIndex
from eyas.data.loading.cache import Decoded, ImageCache
from eyas.image_header import parse_header
from eyas.types import FloatArray, InputSpec, IntArray, UInt8Array

MEMO_BYTES = 256 << 20  # decoded images that one worker remembers


class Source:
    """A decoded image with its boxes, and halves of it that are made when first asked for.

    Attributes:
        image: uint8 [h, w, 3], RGB, perhaps smaller than the original.
        boxes: float32 [m, 4], xyxy pixels of `image`, clipped to it; no crowds.
        labels: int64 [m].
        size: (height, width) of the original image.
    """

    __slots__ = ("_halves", "boxes", "image", "labels", "size")

    def __init__(self, image: UInt8Array, boxes: FloatArray, labels: IntArray, size: tuple[int, int]) -> None:
        self.image = image
        self.boxes = boxes
        self.labels = labels
        self.size = size
        self._halves: list[UInt8Array] = [image]

    @property
    def height(self) -> int:
        """Height of `image` in pixels."""
        return int(self.image.shape[0])

    @property
    def width(self) -> int:
        """Width of `image` in pixels."""
        return int(self.image.shape[1])

    def mirrored(self) -> Source:
        """Return the image with left and right changed."""
        boxes = self.boxes.copy()
        boxes[:, [0, 2]] = self.width - self.boxes[:, [2, 0]]
        return Source(np.ascontiguousarray(self.image[:, ::-1]), boxes, self.labels, self.size)

    def level(self, number: int) -> UInt8Array:
        """Return the image halved `number` times by averaging 2 x 2 pixels (an odd last row or column is left off).

        Enlarged or shrunk to no less than half, linear interpolation uses every pixel; below that it would skip some,
        so a smaller image is to be made from a higher level.
        """
        while len(self._halves) <= number:
            last = self._halves[-1]
            height, width = last.shape[0] // 2, last.shape[1] // 2
            even = last[: height * 2, : width * 2]
            self._halves.append(np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA), np.uint8))
        return self._halves[number]

    def nbytes(self) -> int:
        """Return the memory that the image takes."""
        return self.image.nbytes


class Images:
    """Reads the images of an index as `Source`s, remembering the last ones.

    What is remembered changes how fast an image comes, never its pixels.

    Args:
        index: the dataset.
        spec: the frame that images are made for.
        max_scale: the greatest factor on the size that fits the frame which will be asked for; a JPEG that is larger
            than that takes is decoded at 1/2, 1/4 or 1/8. None: always the very pixels.
        cache: where files or pixels are kept in memory.
    """

    def __init__(self, index: DatasetIndex, spec: InputSpec, max_scale: float | None, cache: ImageCache) -> None:
        self.index = index
        self.spec = spec
        self.max_scale = max_scale
        self.cache = cache
        self._memo: OrderedDict[int, Source] = OrderedDict()
        self._memo_bytes = 0

    def path(self, index: int) -> Path:
        """Return the path of image `index`."""
        return self.index.path(index)

    def get(self, index: int) -> Source:
        """Return image `index`.

        Raises:
            UserError: the file is missing, broken, or too large; see `eyas.decode.decode`.
        """
        known = self._memo.get(index)
        if known is not None:
            self._memo.move_to_end(index)
            return known
        source = self._read(index)
        self._memo[index] = source
        self._memo_bytes += source.nbytes()
        while self._memo_bytes > MEMO_BYTES and len(self._memo) > 1:
            self._memo_bytes -= self._memo.popitem(last=False)[1].nbytes()
        return source

    def forget(self) -> None:
        """Forget all images."""
        self._memo.clear()
        self._memo_bytes = 0

    def decode(self, index: int) -> Decoded:
        """Return the pixels of image `index`, read anew; a broken one is a UserError."""
        data = self.cache.read(index)
        header = parse_header(data)
        shrink = shrink_of(*header.size, self.spec, self.max_scale) if header is not None else 1
        image = decode.decode(data, shrink=shrink, fast=self.max_scale is not None, where=str(self.path(index)))
        size = header.size if header is not None else (image.shape[0], image.shape[1])
        return Decoded(image, size, decode.shrink_factor(shrink))

    def _read(self, index: int) -> Source:
        image, (height, width), factor = self.cache.pixels(index) or self.decode(index)
        boxes, labels, crowd = self.index.truth(index)
        boxes, rows = trained_truth(boxes, crowd, np.array([[height, width]]), np.array([factor]))
        return Source(image, boxes, labels[rows], (height, width))


def shrink_of(height: int, width: int, spec: InputSpec, max_scale: float | None) -> int:
    """Return how many times smaller an image of a size can be decoded; see `Images` for `max_scale`."""
    if max_scale is None:
        return 1
    fit = min(spec.height / max(height, 1), spec.width / max(width, 1))
    return max(1, int(1 / (fit * max_scale)))


def trained_truth(
    boxes: FloatArray, crowd: npt.NDArray[np.bool_], sizes: IntArray, factors: IntArray
) -> tuple[FloatArray, IntArray]:
    """Return the boxes that training uses, in decoded pixels and clipped to their images, and their rows.

    Args:
        boxes: float32 [m, 4], in pixels of the image files.
        crowd: bool [m].
        sizes: int64 [m, 2] or [1, 2], (height, width) of each box's image file.
        factors: int64 [m] or [1], pixels of the file that a decoded one stands for.
    """
    with np.errstate(invalid="ignore"):
        clipped = np.clip(boxes, 0, sizes[:, [1, 0, 1, 0]].astype(np.float32)) / factors[:, None].astype(np.float32)
        solid = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
    rows = np.flatnonzero(~crowd & np.isfinite(boxes).all(axis=1) & solid)
    return np.asarray(clipped[rows], np.float32), rows.astype(np.int64)
