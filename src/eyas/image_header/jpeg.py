"""JPEG: segments up to the frame header."""

from __future__ import annotations

import struct
from dataclasses import replace

from eyas.image_header.base import MAX_PARTS, BadHeader, FileBytes, ImageHeader, exif_orientation

_SEQUENTIAL = (0xC0, 0xC1, 0xC9)


def jpeg_header(data: FileBytes) -> ImageHeader:
    """Walk the segments up to the first scan; after `MAX_PARTS` of them there is none."""
    orientation, adobe, at = 1, False, 2
    frame: ImageHeader | None = None
    for _ in range(MAX_PARTS):
        at = data.find(b"\xff", at)
        if at < 0 or at + 4 > len(data):
            break
        marker = data[at + 1]
        if marker in (0xFF, 0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # fill bytes and markers without a body
            at += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        if length < 2:  # readers do not agree on where the next segment begins
            raise BadHeader("a JPEG segment is shorter than its own length field")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if frame is not None:
                raise BadHeader("the JPEG file has two frame headers")
            height, width, channels = struct.unpack_from(">HHB", data, at + 5)
            frame = ImageHeader("jpeg", height, width, 1, channels, False, marker not in _SEQUENTIAL)
        if marker in (0xD9, 0xDA):
            if frame is not None and marker == 0xDA and at + 4 < len(data) and data[at + 4] < frame.channels:
                frame = replace(frame, scans=True)  # the other components come in scans of their own
            break
        body = data[at + 4 : at + 2 + length]
        if marker == 0xE1 and body[:6] == b"Exif\0\0":
            orientation = exif_orientation(body[6:])
        elif marker == 0xEE and body[:5] == b"Adobe":
            adobe = True
        at += 2 + length
    if frame is None:
        raise BadHeader("its header is incomplete")
    return replace(frame, orientation=orientation, adobe=adobe)
