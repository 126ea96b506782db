"""PNG: the header, the orientation, and the file with nothing in it but what its pixels need."""

from __future__ import annotations

import struct

from eyas.image_header.base import MAX_PARTS, BadHeader, FileBytes, ImageHeader, exif_orientation

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Everything else describes the pixels and changes none. A decoder unpacks such chunks all the same: a compressed text
# of 8 kB takes 8 MB, and a thousand of them fit into a small file.
_PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT"})
_FRAMES = frozenset({b"IDAT", b"fdAT", b"fcTL"})  # of these an image may have any number


def png_header(data: FileBytes) -> ImageHeader:
    """Read size and orientation; a second header, or a frame larger than the image, is refused."""
    if data[12:16] != b"IHDR" or data[8:12] != b"\0\0\0\r":
        raise BadHeader("the PNG file doesn't begin with its header")
    width, height = struct.unpack_from(">II", data, 16)
    orientation, at, parts = 1, 33, 0
    while at + 8 <= len(data) and parts < MAX_PARTS:
        length, name = struct.unpack_from(">I4s", data, at)
        if name == b"IHDR":
            raise BadHeader("the PNG file has two headers")
        if name == b"eXIf":
            orientation = exif_orientation(data[at + 8 : at + 8 + length].removeprefix(b"Exif\0\0"))
            break
        if name == b"fcTL" and length == 26:
            _check_frame(struct.unpack_from(">IIII", data, at + 12), height, width)
        if name == b"IEND":
            break
        at += 12 + length
        parts += name != b"IDAT"
    return ImageHeader("png", height, width, orientation)


def _check_frame(frame: tuple[int, int, int, int], height: int, width: int) -> None:
    wide, high, left, top = frame
    if left + wide > width or top + high > height:
        raise BadHeader(f"a frame of {wide} x {high} pixels exceeds the image of {width} x {height}")


def pixels_only(data: bytes) -> bytes:
    """Return the PNG file without the chunks that change no pixel: texts, colour profiles, times, EXIF.

    Raises:
        BadHeader: a chunk is longer than the file; a decoder takes the memory for it before it finds that out.
    """
    kept = [(0, 8)]
    at, others = 8, 0
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise BadHeader("it ends in the middle of a chunk")
        # A chunk that must be understood (its first letter is a capital) stays too: the decoder has to refuse it.
        if name in _PIXELS or not name[0] & 0x20:
            if kept[-1][1] == at:
                kept[-1] = (kept[-1][0], end)
            else:
                kept.append((at, end))
        if name == b"IEND":
            break
        others += name not in _FRAMES
        if others > MAX_PARTS:
            raise BadHeader(f"it has more than {MAX_PARTS} chunks besides its pixels")
        at = end
    return b"".join(data[start:end] for start, end in kept)
