"""Which sizes of an image the store keeps, and where they begin: planned before anything is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from eyas import letterbox
from eyas.data.augment.affine import FITTED, level_of, top_level
from eyas.data.augment.config import AugmentPolicy
from eyas.data.loading.source import Source, shrink_of
from eyas.decode import shrink_factor
from eyas.types import InputSpec, IntArray, UInt8Array

LEVELS = 14  # a decoded image is never halved more often: its sides are below 2 ** 14 or it was shrunk before
COLUMNS = 2 * LEVELS


class LayoutPart(NamedTuple):
    """One size of an image.

    Attributes:
        level: how often it is halved (`Source.level`), or FITTED.
        height, width: of its pixels.
        mirrored: halved after left and right were changed, and changed back: where a side has no exact half, that is
            another image.
    """

    level: int
    height: int
    width: int
    mirrored: bool = False

    @property
    def column(self) -> int:
        """The part's place in the table of starts."""
        return column_of(self.level, self.mirrored)


def column_of(level: int, mirrored: bool) -> int:
    """Return the place of a part in the table of starts."""
    if level == FITTED:
        return 0
    return LEVELS + level if mirrored and level else 1 + level


class MemoryLayout:
    """Plans what is kept of images for some policies: every size that one of them can ask for, and no other.

    Args:
        spec: the network's input.
        policies: the run's policies.

    Attributes:
        max_scale: as `eyas.data.loading.source.Images` takes it.
    """

    def __init__(self, spec: InputSpec, policies: Sequence[AugmentPolicy]) -> None:
        self.spec = spec
        self.policies = tuple(policies)
        self.moving = [policy for policy in policies if policy.moves]
        self.still = len(self.moving) < len(policies)
        self.max_scale = greatest_scale(policies)
        self._known: dict[tuple[int, int], tuple[LayoutPart, ...]] = {}

    def factor(self, height: int, width: int) -> int:
        """Return how many pixels of an image file, across and down, a decoded one stands for."""
        return shrink_factor(shrink_of(height, width, self.spec, self.max_scale))

    def decoded(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) of the decoded pixels of an image file of the given size."""
        factor = self.factor(height, width)
        return -(-height // factor), -(-width // factor)

    def parts(self, height: int, width: int) -> tuple[LayoutPart, ...]:
        """Return what is kept of an image of the given decoded size, in the order in which it is stored.

        Of one without size, which can't be read, that is nothing.
        """
        if (height, width) not in self._known:
            self._known[height, width] = self._parts(height, width)
        return self._known[height, width]

    def pixels(self, height: int, width: int) -> int:
        """Return how many pixels are kept of an image of the given decoded size."""
        return sum(part.height * part.width for part in self.parts(height, width))

    def nbytes(self, sizes: IntArray) -> int:
        """Return the memory for images with files of the given (height, width), int [N, 2]; zeros take none."""
        different, counts = np.unique(sizes, axis=0, return_counts=True)
        pairs = zip(different.tolist(), counts.tolist(), strict=True)
        return sum(3 * count * self.pixels(*self.decoded(*size)) for size, count in pairs if min(size) > 0)

    def pack(self, source: Source) -> UInt8Array:
        """Return the parts of an image one after another, uint8 [pixels, 3]."""
        mirrored: Source | None = None
        packed = []
        for part in self.parts(source.height, source.width):
            if part.level == FITTED:
                image, placed = letterbox.letterbox(source.image, self.spec)
                image = image[placed.top : placed.top + placed.height, placed.left : placed.left + placed.width]
            elif part.mirrored:
                mirrored = mirrored or source.mirrored()
                image = mirrored.level(part.level)[:, ::-1]
            else:
                image = source.level(part.level)
            packed.append(image.reshape(-1, 3))
        return np.concatenate(packed)

    def starts(self, height: int, width: int) -> IntArray:
        """Return where each part begins among the pixels of `pack`, int64 [COLUMNS], -1 where there is none."""
        found, start = np.full(COLUMNS, -1, np.int64), 0
        for part in self.parts(height, width):
            found[part.column] = start
            start += part.height * part.width
        # An exact half of a mirrored image is the half, mirrored.
        alike = slice(LEVELS + 1, COLUMNS)
        found[alike] = np.where(found[alike] < 0, found[2 : LEVELS + 1], found[alike])
        return found

    def _parts(self, height: int, width: int) -> tuple[LayoutPart, ...]:
        parts: list[LayoutPart] = []
        if not height or not width:
            return ()
        if self.still:
            placed = letterbox.place(height, width, self.spec)
            parts.append(LayoutPart(FITTED, placed.height, placed.width))
        if self.moving:
            fit = min(self.spec.height / height, self.spec.width / width)
            first = level_of(height, width, fit * max(policy.scale[1] for policy in self.moving))
            last = level_of(height, width, fit * min(policy.scale[0] for policy in self.moving))
            # A partner within another image is as small as that one makes it.
            if any(policy.within == "image" and policy.mixup for policy in self.moving):
                last = top_level(height, width)
            levels = range(first, last + 1)
            parts += [LayoutPart(level, height >> level, width >> level) for level in levels]
            if any(policy.within == "image" and policy.mixup and policy.flip for policy in self.moving):
                odd = [level for level in levels if width % 2**level]
                parts += [LayoutPart(level, height >> level, width >> level, mirrored=True) for level in odd]
        return tuple(parts)


def greatest_scale(policies: Sequence[AugmentPolicy]) -> float | None:
    """Return the greatest factor on the size that fits the frame which the policies ask for; None: the very pixels."""
    return max(policy.scale[1] for policy in policies) if any(policy.moves for policy in policies) else None
