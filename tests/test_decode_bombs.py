"""Small files that unpack to gigabytes: each kind of image is refused by its header, before memory is taken."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from eyas.decode import MAX_PIXELS, decode, image_size
from eyas.errors import UserError

SIDE = 24000


def png(side: int, *, rows: int) -> bytes:
    """Return a black PNG of one bit a pixel that says it has side x side pixels, with so many rows behind it."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    packed = zlib.compress(bytes((1 + side // 8) * rows), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def webp(kind: bytes, body: bytes) -> bytes:
    """Return a WebP file of one chunk."""
    chunk = kind + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def animation(side: int) -> bytes:
    """Return an animated WebP of side x side pixels with one frame of one pixel."""
    stream = b"\x2f" + bytes(4)
    frame = bytes(6 + 3 + 3 + 4) + b"VP8L" + struct.pack("<I", len(stream)) + stream + b"\0"
    head = b"VP8X" + struct.pack("<I", 10) + b"\2" + bytes(3) + 2 * (side - 1).to_bytes(3, "little")
    chunks = head + b"ANIM" + struct.pack("<I", 6) + bytes(6) + b"ANMF" + struct.pack("<I", len(frame)) + frame
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def tiff(side: int) -> bytes:
    """Return the first directory of a TIFF with side x side pixels."""
    tags = [(256, 4, side), (257, 4, side), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 200), (279, 4, 100)]
    rows = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + rows + bytes(400)


BOMBS = {
    "png": (png(SIDE, rows=4), SIDE),
    "webp, lossy": (webp(b"VP8 ", bytes(3) + b"\x9d\x01\x2a" + struct.pack("<HH", 16383, 16383) + bytes(64)), 16383),
    "webp, lossless": (webp(b"VP8L", b"\x2f" + struct.pack("<I", 16382 | 16382 << 14) + bytes(64)), 16383),
    "webp, extended": (animation(SIDE), SIDE),
    "gif": (b"GIF89a" + struct.pack("<HHBBB", SIDE, SIDE, 0, 0, 0) + bytes(64), SIDE),
    "bmp": (b"BM" + struct.pack("<IHHIIiiHH", 100, 0, 0, 54, 40, SIDE, -SIDE, 1, 24) + bytes(64), SIDE),
    "tiff": (tiff(SIDE), SIDE),
    "ppm": (b"P6 # a comment\n%d\n#another\n %d\n255\n" % (SIDE, SIDE) + bytes(64), SIDE),
    "pbm": (b"P4\n%d %d\n" % (SIDE, SIDE), SIDE),
    "pam": (b"P7\nWIDTH %d\nHEIGHT %d\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n" % (SIDE, SIDE), SIDE),
}  # fmt: skip


@pytest.mark.parametrize("kind", BOMBS)
def test_the_header_is_enough_to_refuse_it(kind: str) -> None:
    data, side = BOMBS[kind]
    assert image_size(data) == (side, side) and side * side > MAX_PIXELS
    with pytest.raises(UserError, match=f"{side} x {side} = {side * side / 1e6:.0f} million pixels") as error:
        decode(data, where="bomb")
    assert "at most 179 million" in error.value.expected and error.value.where == "bomb"


@pytest.mark.parametrize(
    "data", [b"P6 999999999999 9 255\n", b"P7\nWIDTH 9\nENDHDR\n", b"II+\0" + bytes(99), b"Pf 9 9 1\n"]
)
def test_a_kind_whose_size_is_not_known_before_is_refused(data: bytes) -> None:
    with pytest.raises(UserError, match="not a supported image"):
        decode(data)


MEASURE = """
import resource, sys
from eyas.decode import decode, read_image
from eyas.errors import UserError
decode(open(sys.argv[2], "rb").read())  # whatever the decoders keep, they keep from here on
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_image(sys.argv[1])
except UserError as error:
    print(error)
print("KiB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="resource is a module of Unix")
def test_memory_does_not_grow_with_a_whole_bomb(tmp_path: Path) -> None:
    """A complete, valid PNG of 70 kB: decoded it would take 576 MB in grey alone."""
    (tmp_path / "bomb.png").write_bytes(png(SIDE, rows=SIDE))
    (tmp_path / "small.png").write_bytes(png(64, rows=64))
    assert (tmp_path / "bomb.png").stat().st_size < 2**20
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "bomb.png"), str(tmp_path / "small.png")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "576 million pixels" in done.stdout, done.stderr
    unit = 1024 if sys.platform == "darwin" else 1  # bytes there, kilobytes on Linux
    assert int(done.stdout.split()[-1]) / unit < 16 * 1024
