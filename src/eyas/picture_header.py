"""What a picture file's first bytes say: its kind, size and EXIF orientation, without decoding a pixel."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from mmap import mmap
from typing import Literal

PictureKind = Literal["jpeg", "png", "webp", "bmp", "gif", "tiff", "avif", "jpeg2000", "pnm"]
MAX_PARTS = 10_000  # segments or chunks that are looked at: a hostile file may hold millions of empty ones
FileBytes = bytes | mmap  # a mapped file is read only where the parser looks


@dataclass(frozen=True)
class PictureHeader:
    """What the header says.

    Attributes:
        kind: the file format.
        height, width: the size in pixels as stored, before the orientation is applied.
        orientation: EXIF orientation, 1 (upright) to 8.
        channels: of a JPEG, how many components it has (1 grey, 3 colour, 4 CMYK or YCCK).
        adobe: whether a JPEG carries Adobe's marker, which means that its inks are stored inverted.
    """

    kind: PictureKind
    height: int
    width: int
    orientation: int = 1
    channels: int = 3
    adobe: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """The upright (height, width)."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


def parse_header(data: FileBytes) -> PictureHeader | None:
    """Return what the header of a picture file says, or None if it is of no known kind or ends too early."""
    try:
        if data[:2] == b"\xff\xd8":
            return _jpeg_header(data)
        if data[:8] == b"\x89PNG\r\n\x1a\n":
            width, height = struct.unpack_from(">II", data, 16)
            return PictureHeader("png", height, width, _chunk_orientation(data, "png", 8, b"eXIf"))
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp_header(data)
        if data[:2] == b"BM":
            return _bmp_header(data)
        if data[:6] in (b"GIF87a", b"GIF89a"):
            width, height = struct.unpack_from("<HH", data, 6)
            return PictureHeader("gif", height, width)
        if data[:4] in (b"II*\0", b"MM\0*"):
            tags = _tiff_tags(data)
            return PictureHeader("tiff", tags[257], tags[256], _valid_orientation(tags.get(274, 1)))
        if data[:1] == b"P":
            return _pnm_header(data)
        return _box_header(data)
    except (struct.error, IndexError, KeyError):
        return None


def _jpeg_header(data: FileBytes) -> PictureHeader | None:
    """Walk the segments up to the frame header; after `MAX_PARTS` of them there is none."""
    orientation, adobe, at = 1, False, 2
    for _ in range(MAX_PARTS):
        at = data.find(b"\xff", at)
        if at < 0 or at + 4 > len(data):
            return None
        marker = data[at + 1]
        if marker in (0xFF, 0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # fill bytes and markers without a body
            at += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width, channels = struct.unpack_from(">HHB", data, at + 5)
            return PictureHeader("jpeg", height, width, orientation, channels, adobe)
        if marker in (0xD9, 0xDA):
            return None
        body = data[at + 4 : at + 2 + length]
        if marker == 0xE1 and body[:6] == b"Exif\0\0":
            orientation = _exif_orientation(body[6:])
        elif marker == 0xEE and body[:5] == b"Adobe":
            adobe = True
        at += 2 + length
    return None


def _webp_header(data: FileBytes) -> PictureHeader:
    """Read the size from the first chunk (lossy, lossless or extended) and the orientation from the EXIF chunk."""
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return PictureHeader("webp", height & 0x3FFF, width & 0x3FFF)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return PictureHeader("webp", (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1)
    width = int.from_bytes(data[24:27], "little") + 1
    height = int.from_bytes(data[27:30], "little") + 1
    return PictureHeader("webp", height, width, _chunk_orientation(data, "riff", 12, b"EXIF"))


def _bmp_header(data: FileBytes) -> PictureHeader:
    """Read the size; a negative height marks rows stored top down."""
    if struct.unpack_from("<I", data, 14)[0] == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return PictureHeader("bmp", abs(height), abs(width))


def _box_header(data: FileBytes) -> PictureHeader | None:
    """Read the size of an AVIF ('ispe' box) or JPEG 2000 ('ihdr' box) file."""
    head = data[:4096]
    if head[4:8] == b"ftyp" and (at := head.find(b"ispe")) > 0:
        width, height = struct.unpack_from(">II", head, at + 8)
        return PictureHeader("avif", height, width)
    if head[4:8] == b"jP  " and (at := head.find(b"ihdr")) > 0:
        height, width = struct.unpack_from(">II", head, at + 4)
        return PictureHeader("jpeg2000", height, width)
    return None


def _pnm_header(data: FileBytes) -> PictureHeader | None:
    """Read the size of a PBM, PGM, PPM or PAM file, which is text."""
    head = data[:4096]
    gap = rb"(?:\s|#[^\n]*\n)+"
    if head[:2] == b"P7":
        wide, high = re.search(rb"^WIDTH (\d{1,9})\s", head, re.M), re.search(rb"^HEIGHT (\d{1,9})\s", head, re.M)
        return PictureHeader("pnm", int(high[1]), int(wide[1])) if wide and high else None
    found = re.match(rb"P[1-6]" + gap + rb"(\d{1,9})" + gap + rb"(\d{1,9})\s", head)
    return PictureHeader("pnm", int(found[2]), int(found[1])) if found else None


def _chunk_orientation(data: FileBytes, form: str, start: int, wanted: bytes) -> int:
    """Return the orientation in the chunk called `wanted`, 1 where there is none.

    Args:
        data: a PNG or WebP file.
        form: "png" (length, name, body, checksum) or "riff" (name, length, body, padded to even).
        start: where the first chunk begins.
        wanted: the chunk's name.
    """
    at = start
    for _ in range(MAX_PARTS):
        if at + 8 > len(data):
            break
        if form == "png":
            length, name = struct.unpack_from(">I4s", data, at)
        else:
            name, length = struct.unpack_from("<4sI", data, at)
        if name == wanted:
            return _exif_orientation(data[at + 8 : at + 8 + length].removeprefix(b"Exif\0\0"))
        at += 12 + length if form == "png" else 8 + length + length % 2
    return 1


def _exif_orientation(exif: bytes) -> int:
    """Return the orientation tag of an EXIF block, 1 where it is missing or makes no sense."""
    try:
        return _valid_orientation(_tiff_tags(exif).get(274, 1))
    except (struct.error, KeyError):
        return 1


def _valid_orientation(value: int) -> int:
    """Return the value if it is one of the eight orientations, else 1."""
    return value if 1 <= value <= 8 else 1


def _tiff_tags(data: FileBytes) -> dict[int, int]:
    """Return the integer tags of the first directory of a TIFF structure (EXIF has the same form)."""
    order = {b"II": "<", b"MM": ">"}[data[:2]]
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    tags: dict[int, int] = {}
    for at in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(order + "HH", data, at)
        if kind in (3, 4):  # short, long
            (tags[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, at + 8)
    return tags
