"""WebP: the RIFF chunks, read as the decoder reads them."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from eyas.image_header.base import MAX_PARTS, BadHeader, FileBytes, ImageHeader, differ, exif_orientation

_ANIMATION = 2  # in the flags of the extended header


def webp_header(data: FileBytes) -> ImageHeader:
    """Read the size from the bitstream's own header; what an extended header says must be the same.

    The decoder takes a raw stream for an image where it finds no chunk that it knows, so an unknown first chunk is
    refused.
    """
    kind = data[12:16]
    if kind in (b"VP8 ", b"VP8L"):
        height, width = _stream_size(data, 12)
        return ImageHeader("webp", height, width)
    if kind != b"VP8X" or data[16:20] != b"\x0a\0\0\0":
        raise BadHeader("the WebP file doesn't start with an image or an extended header")
    width = int.from_bytes(data[24:27], "little") + 1
    height = int.from_bytes(data[27:30], "little") + 1
    animated = bool(data[20] & _ANIMATION)
    orientation, images = 1, 0
    for name, at, length in _chunks(data, 30):
        if name in (b"VP8 ", b"VP8L") and not animated:
            images += 1
            if _stream_size(data, at) != (height, width):
                raise differ("WebP", (height, width), _stream_size(data, at))
        elif name == b"ANMF" and animated:
            images += 1
            _check_frame(data, at, height, width)
        elif name == b"EXIF":
            orientation = exif_orientation(data[at + 8 : at + 8 + length].removeprefix(b"Exif\0\0"))
    if images == 0 or (images > 1 and not animated):
        raise BadHeader(f"the WebP file contains {images} images instead of one")
    return ImageHeader("webp", height, width, orientation)


def _chunks(data: FileBytes, at: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, where it begins, length of its body) of the chunks from `at` on, up to where the file says it ends.

    Raises:
        BadHeader: there are too many.
    """
    end = min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    for _ in range(MAX_PARTS):
        if at + 8 > end:
            return
        name, length = struct.unpack_from("<4sI", data, at)
        yield name, at, length
        at += 8 + length + length % 2
    raise BadHeader(f"the WebP file has more than {MAX_PARTS} parts")


def _stream_size(data: FileBytes, at: int) -> tuple[int, int]:
    """Return the (height, width) that the lossy or lossless chunk at `at` begins with."""
    if data[at : at + 4] == b"VP8 ":
        if data[at + 11 : at + 14] != b"\x9d\x01\x2a":
            raise BadHeader("the WebP file's image has no header")
        width, height = struct.unpack_from("<HH", data, at + 14)
        return height & 0x3FFF, width & 0x3FFF
    (bits,) = struct.unpack_from("<I", data, at + 9)
    if data[at + 8] != 0x2F:
        raise BadHeader("the WebP file's image has no header")
    return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1


def _check_frame(data: FileBytes, at: int, height: int, width: int) -> None:
    """Refuse a frame of an animation that is not inside the image, or whose stream has another size."""
    left, top, wide, high = (int.from_bytes(data[at + 8 + 3 * i : at + 11 + 3 * i], "little") for i in range(4))
    if 2 * left + wide + 1 > width or 2 * top + high + 1 > height:
        raise BadHeader(f"a frame of {wide + 1} x {high + 1} pixels exceeds the image of {width} x {height}")
    inner = at + 24
    if data[inner : inner + 4] == b"ALPH":
        (length,) = struct.unpack_from("<I", data, inner + 4)
        inner += 8 + length + length % 2
    if data[inner : inner + 4] not in (b"VP8 ", b"VP8L"):
        raise BadHeader("a frame of the WebP file has no image")
    if _stream_size(data, inner) != (high + 1, wide + 1):
        raise differ("WebP", (high + 1, wide + 1), _stream_size(data, inner))
