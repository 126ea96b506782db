"""What a picture file's first bytes say: its kind, size and EXIF orientation, without decoding a pixel.

The decoders are other people's libraries, each with a reader of its own. So a header is read as they read it, one
family of formats a file, and a file in which two readers could find two sizes is refused: its memory would be judged
by one size and taken by the other.
"""

from __future__ import annotations

import struct

from eyas.picture_header.base import BadHeader, FileBytes, PictureHeader, PictureKind
from eyas.picture_header.boxes import JPEG2000_SIGNATURE, avif_header, is_avif, jpeg2000_header
from eyas.picture_header.jpeg import jpeg_header
from eyas.picture_header.plain import bmp_header, gif_header, pnm_header, tiff_header
from eyas.picture_header.png import SIGNATURE as PNG_SIGNATURE
from eyas.picture_header.png import pixels_only, png_header
from eyas.picture_header.webp import webp_header

__all__ = ["BadHeader", "FileBytes", "PictureHeader", "PictureKind", "parse_header", "pixels_only", "read_header"]


def read_header(data: FileBytes) -> PictureHeader:
    """Return what the header of a picture file says.

    Raises:
        BadHeader: it is of no known kind, ends too early, or says two things; tells which, "" for the first.
    """
    try:
        if data[:2] == b"\xff\xd8":
            return jpeg_header(data)
        if data[:8] == PNG_SIGNATURE:
            return png_header(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return webp_header(data)
        if data[:2] == b"BM":
            return bmp_header(data)
        if data[:6] in (b"GIF87a", b"GIF89a"):
            return gif_header(data)
        if data[:4] in (b"II*\0", b"MM\0*"):
            return tiff_header(data)
        if data[:1] == b"P" and data[1:2] in b"1234567":
            return pnm_header(data)
        if data[:12] == JPEG2000_SIGNATURE:
            return jpeg2000_header(data)
        if is_avif(data):
            return avif_header(data)
    except (struct.error, IndexError, KeyError):
        raise BadHeader("its header is incomplete") from None
    raise BadHeader("")


def parse_header(data: FileBytes) -> PictureHeader | None:
    """Return what the header of a picture file says, or None if it is of no known kind, incomplete or ambiguous."""
    try:
        return read_header(data)
    except BadHeader:
        return None
