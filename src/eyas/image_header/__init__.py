"""What an image file's first bytes say: its kind, size and EXIF orientation, without decoding a pixel.

The decoders are other people's libraries, each with a reader of its own. So a header is read as they read it, one
family of formats a file, and a file in which two readers could find two sizes is refused: its memory would be judged
by one size and taken by the other.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from eyas.image_header.base import BadHeader, FileBytes, ImageHeader, ImageKind
from eyas.image_header.boxes import JPEG2000_SIGNATURE, avif_header, is_avif, jpeg2000_header
from eyas.image_header.jpeg import jpeg_header
from eyas.image_header.plain import bmp_header, gif_header, pnm_header, tiff_header
from eyas.image_header.png import SIGNATURE as PNG_SIGNATURE
from eyas.image_header.png import pixels_only, png_header
from eyas.image_header.webp import webp_header

__all__ = [
    "BadHeader",
    "FileBytes",
    "ImageHeader",
    "ImageKind",
    "image_kind",
    "parse_header",
    "pixels_only",
    "read_header",
]

_PARSERS: dict[ImageKind, Callable[[FileBytes], ImageHeader]] = {
    "jpeg": jpeg_header,
    "png": png_header,
    "webp": webp_header,
    "bmp": bmp_header,
    "gif": gif_header,
    "tiff": tiff_header,
    "avif": avif_header,
    "jpeg2000": jpeg2000_header,
    "pnm": pnm_header,
}


def read_header(data: FileBytes) -> ImageHeader:
    """Return what the header of an image file says.

    Raises:
        BadHeader: it is of no known kind, ends too early, or says two things; tells which, "" for the first.
    """
    kind = image_kind(data)
    if kind is None:
        raise BadHeader("")
    try:
        return _PARSERS[kind](data)
    except (struct.error, IndexError, KeyError):
        raise BadHeader("its header is incomplete") from None


def image_kind(data: FileBytes) -> ImageKind | None:
    """Return the kind of image file that begins like this; 32 bytes are enough. None for no kind."""
    if data[:2] == b"\xff\xd8":
        return "jpeg"
    if data[:8] == PNG_SIGNATURE:
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:2] == b"BM":
        return "bmp"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if data[:4] in (b"II*\0", b"MM\0*"):
        return "tiff"
    if data[:1] == b"P" and data[1:2] in (b"1", b"2", b"3", b"4", b"5", b"6", b"7") and data[2:3].isspace():
        return "pnm"
    if data[:12] == JPEG2000_SIGNATURE:
        return "jpeg2000"
    return "avif" if is_avif(data) else None


def parse_header(data: FileBytes) -> ImageHeader | None:
    """Return what the header of an image file says, or None if it is of no known kind, incomplete or ambiguous."""
    try:
        return read_header(data)
    except BadHeader:
        return None
