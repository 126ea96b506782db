"""BMP, GIF, TIFF and PNM: a size at a fixed place, in a directory, or in words."""

from __future__ import annotations

import re
import struct

from eyas.image_header.base import BadHeader, FileBytes, ImageHeader, directory, valid_orientation

_LONGEST_TEXT = 4096  # of a PNM header, comments included
_HEIGHT, _WIDTH, _ORIENTATION = 257, 256, 274
# What decides how much a TIFF takes. Libraries do not agree on which counts where one stands there twice.
_ONCE = {_WIDTH: "width", _HEIGHT: "height", 258: "bits", 259: "compression", 277: "samples", _ORIENTATION: "turn",
         278: "rows of a strip", 322: "tile width", 323: "tile height"}  # fmt: skip


def bmp_header(data: FileBytes) -> ImageHeader:
    """Read the size; a negative height marks rows stored top down."""
    (size,) = struct.unpack_from("<I", data, 14)
    if size == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    elif size >= 36:
        width, height = struct.unpack_from("<ii", data, 18)
    else:
        raise BadHeader(f"the BMP file's header is {size} bytes long")
    return ImageHeader("bmp", abs(height), abs(width))


def gif_header(data: FileBytes) -> ImageHeader:
    """Read the size of the screen, which is the image's."""
    width, height = struct.unpack_from("<HH", data, 6)
    return ImageHeader("gif", height, width)


def tiff_header(data: FileBytes) -> ImageHeader:
    """Read the size from the first directory; a tag that decides it and stands there twice is refused."""
    tags: dict[int, int] = {}
    for tag, value in directory(data):
        if tag in tags and tag in _ONCE:
            raise BadHeader(f"the TIFF file states its {_ONCE[tag]} twice")
        tags[tag] = value
    if _HEIGHT not in tags or _WIDTH not in tags:
        raise BadHeader("the TIFF file doesn't state its size in whole numbers")
    return ImageHeader("tiff", tags[_HEIGHT], tags[_WIDTH], valid_orientation(tags.get(_ORIENTATION, 1)))


def pnm_header(data: FileBytes) -> ImageHeader:
    """Read the size of a PBM, PGM, PPM or PAM file, which is text."""
    head = data[:_LONGEST_TEXT]
    if head[:2] == b"P7":
        return _pam_header(head)
    gap = rb"(?:\s|#[^\r\n]*\r?\n)+"  # for some readers a lone carriage return ends a comment, for others not
    found = re.match(rb"P[1-6]" + gap + rb"(\d{1,9})" + gap + rb"(\d{1,9})\s", head)
    if found is None:
        raise BadHeader("the PNM file has no size in its header")
    return ImageHeader("pnm", int(found[2]), int(found[1]))


def _pam_header(head: bytes) -> ImageHeader:
    """Read the lines up to ENDHDR; the height and the width stand there once."""
    text, end, _ = head.partition(b"ENDHDR")
    found = {}
    for name in (b"HEIGHT", b"WIDTH"):
        values = re.findall(rb"^" + name + rb" (\d{1,9})\s", text, re.M)
        if len(values) != 1 or text.count(name) != 1 or not end:
            raise BadHeader(f"the PAM file does not state its {name.decode().lower()} exactly once")
        found[name] = int(values[0])
    return ImageHeader("pnm", found[b"HEIGHT"], found[b"WIDTH"])
