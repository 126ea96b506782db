"""What every header parser gives and uses: the header's fields, the reason why there is none, EXIF orientation."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap
from typing import Literal

ImageKind = Literal["jpeg", "png", "webp", "bmp", "gif", "tiff", "avif", "jpeg2000", "pnm"]
MAX_PARTS = 10_000  # segments, chunks or boxes that are looked at: a hostile file may hold millions of empty ones
FileBytes = bytes | mmap  # a mapped file is read only where the parser looks


class BadHeader(Exception):
    """The bytes are no image, or two readers could take its size differently; the words say why, for the user."""


@dataclass(frozen=True)
class ImageHeader:
    """What the header says.

    Attributes:
        kind: the file format.
        height, width: the size in pixels as stored, before the orientation is applied.
        orientation: EXIF orientation, 1 (upright) to 8.
        channels: of a JPEG, how many components it has (1 grey, 3 colour, 4 CMYK or YCCK).
        adobe: whether a JPEG carries Adobe's marker, which means that its inks are stored inverted.
        scans: whether a JPEG may hold many scans (it is progressive, or each component has its own).
    """

    kind: ImageKind
    height: int
    width: int
    orientation: int = 1
    channels: int = 3
    adobe: bool = False
    scans: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """The upright (height, width)."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


def differ(kind: str, one: tuple[int, int], other: tuple[int, int]) -> BadHeader:
    """Return the refusal of a file that says two sizes, each (height, width)."""
    return BadHeader(f"the {kind} file states two sizes, {one[1]} x {one[0]} and {other[1]} x {other[0]} pixels")


def valid_orientation(value: int) -> int:
    """Return the value if it is one of the eight orientations, else 1."""
    return value if 1 <= value <= 8 else 1


def exif_orientation(exif: bytes) -> int:
    """Return the orientation tag of an EXIF block, 1 where it is missing or makes no sense."""
    try:
        found = [value for tag, value in directory(exif) if tag == 274]
    except (struct.error, KeyError):
        return 1
    return valid_orientation(found[-1]) if found else 1


def directory(data: FileBytes) -> Iterator[tuple[int, int]]:
    """Yield (tag, value) of the integer entries in the first directory of a TIFF structure; EXIF has the same form."""
    order = {b"II": "<", b"MM": ">"}[data[:2]]
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    for at in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(order + "HH", data, at)
        if kind in (3, 4):  # short, long
            yield tag, struct.unpack_from(order + ("H" if kind == 3 else "I"), data, at + 8)[0]
