"""AVIF and JPEG 2000: files made of boxes inside boxes. Only a size that stands in its right place counts."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from eyas.image_header.base import MAX_PARTS, BadHeader, FileBytes, ImageHeader, differ

JPEG2000_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
_AVIF_BRANDS = frozenset({b"avif", b"avis"})


@dataclass(frozen=True)
class Box:
    """A box: its name, and where its body begins and ends."""

    name: bytes
    start: int
    end: int


def boxes(data: FileBytes, start: int, end: int) -> Iterator[Box]:
    """Yield the boxes between two places.

    Raises:
        BadHeader: a box is shorter than its own head or longer than its parent, or there are too many.
    """
    at = start
    for _ in range(MAX_PARTS):
        if at + 8 > end:
            return
        length, name = struct.unpack_from(">I4s", data, at)
        head = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, at + 8)
            head = 16
        elif length == 0:
            length = end - at
        if length < head or at + length > end:
            raise BadHeader(f"the box '{name.decode('latin-1')}' is longer than the file or than its parent")
        yield Box(name, at + head, at + length)
        at += length
    raise BadHeader(f"the file has more than {MAX_PARTS} boxes")


def _only(found: list[Box], name: bytes) -> Box:
    """Return the one box of that name.

    Raises:
        BadHeader: there is none, or more than one.
    """
    named = [box for box in found if box.name == name]
    if len(named) != 1:
        raise BadHeader(f"the file has {len(named)} '{name.decode()}' boxes instead of one")
    return named[0]


# ------------------------------------------------------------------------------------------------------- JPEG 2000


def jpeg2000_header(data: FileBytes) -> ImageHeader:
    """Read the size from the code stream, which is what the decoder goes by; the header box must say the same."""
    top: list[Box] = []
    for box in boxes(data, 0, len(data)):
        top.append(box)
        if box.name == b"jp2c":  # what follows is not read
            break
    stream = _only(top, b"jp2c")
    header = _only(top, b"jp2h")
    size = _only(list(boxes(data, header.start, header.end)), b"ihdr")
    height, width, components = struct.unpack_from(">IIH", data, size.start)
    if data[stream.start : stream.start + 4] != b"\xff\x4f\xff\x51":
        raise BadHeader("the JPEG 2000 file's codestream has no header")
    right, bottom, left, top_edge, tile_wide, tile_high = struct.unpack_from(">6I", data, stream.start + 8)
    (streams,) = struct.unpack_from(">H", data, stream.start + 40)
    found = (bottom - top_edge, right - left)
    if found != (height, width):
        raise differ("JPEG 2000", (height, width), found)
    if streams != components:
        raise BadHeader(f"the JPEG 2000 file states {components} and {streams} components")
    if (data[stream.start + 43], data[stream.start + 44]) != (1, 1):
        raise BadHeader("the JPEG 2000 file's first component is subsampled")
    if tile_wide < 1 or tile_high < 1:
        raise BadHeader("the JPEG 2000 file has tiles without pixels")
    return ImageHeader("jpeg2000", height, width)


# ------------------------------------------------------------------------------------------------------------ AVIF


def is_avif(data: FileBytes) -> bool:
    """Return whether the file begins as a file of boxes with AVIF's brand does."""
    if data[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(data[:4], "big"), 4096)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
    return bool(brands & _AVIF_BRANDS)


def avif_header(data: FileBytes) -> ImageHeader:
    """Read the size that belongs to the primary item; sizes anywhere else mean nothing."""
    meta = None
    for box in boxes(data, 0, len(data)):
        if box.name == b"meta":
            if meta is not None:
                raise BadHeader("the AVIF file has two 'meta' boxes")
            meta = box
    if meta is None:
        raise BadHeader("the AVIF file has no 'meta' box")
    inside = list(boxes(data, meta.start + 4, meta.end))
    primary = _only(inside, b"pitm")
    long = data[primary.start] > 0
    (item,) = struct.unpack_from(">I" if long else ">H", data, primary.start + 4)
    properties = _only(inside, b"iprp")
    parts = list(boxes(data, properties.start, properties.end))
    container = _only(parts, b"ipco")
    known = list(boxes(data, container.start, container.end))
    sizes = set()
    for box in parts:
        if box.name != b"ipma":
            continue
        for index in _associated(data, box, item):
            if 1 <= index <= len(known) and known[index - 1].name == b"ispe":
                sizes.add(struct.unpack_from(">II", data, known[index - 1].start + 4))
    if len(sizes) != 1:
        raise BadHeader(f"the AVIF file states {len(sizes)} image sizes instead of one")
    width, height = sizes.pop()
    return ImageHeader("avif", height, width)


def _associated(data: FileBytes, box: Box, item: int) -> Iterator[int]:
    """Yield the numbers of the properties that an 'ipma' box gives to an item, from 1."""
    version, wide = data[box.start], data[box.start + 3] & 1
    (count,) = struct.unpack_from(">I", data, box.start + 4)
    at = box.start + 8
    for _ in range(count):
        if at >= box.end:
            return
        (found,) = struct.unpack_from(">I" if version else ">H", data, at)
        at += 4 if version else 2
        num, at = data[at], at + 1
        for _ in range(num):
            if found == item:
                yield struct.unpack_from(">H", data, at)[0] & 0x7FFF if wide else data[at] & 0x7F
            at += 2 if wide else 1
