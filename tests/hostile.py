"""Hostile image files of every kind, made from small valid ones: sizes that lie, doubled parts, changed bytes."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator

import cv2
import numpy as np
from PIL import Image

WIDTH, HEIGHT = 72, 56
LIES = (30000, 16383, 65535, 1 << 20)  # sides in place of the true ones


def _image(mode: str = "RGB") -> Image.Image:
    """Return a small colourful image."""
    coarse = np.random.default_rng(0).integers(0, 255, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)).convert(mode)


def _saved(kind: str, mode: str = "RGB", frames: int = 1, **options: object) -> bytes:
    """Return the image as Pillow writes it."""
    buffer = io.BytesIO()
    if frames > 1:
        options |= {"save_all": True, "append_images": [_image(mode).rotate(90 * i) for i in range(1, frames)]}
    _image(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def _by_opencv(suffix: str, *, deep: bool = False, alpha: bool = False) -> bytes:
    """Return the image as OpenCV writes it."""
    image = np.asarray(_image("RGBA" if alpha else "RGB"))
    ok, data = cv2.imencode(suffix, image.astype(np.uint16) * 257 if deep else image)
    assert ok
    return bytes(data.tobytes())


def seeds() -> dict[str, bytes]:
    """Return name -> a valid image, of every kind that is accepted."""
    grey = np.asarray(_image("L"))
    return {
        "jpeg": _saved("JPEG"),
        "jpeg progressive": _saved("JPEG", progressive=True),
        "jpeg cmyk": _saved("JPEG", "CMYK"),
        "jpeg exif": _saved("JPEG", exif=_turned()),
        "png": _saved("PNG"),
        "png palette": _saved("PNG", "P", transparency=3),
        "png 16 bits": _by_opencv(".png", deep=True, alpha=True),
        "png animation": _saved("PNG", frames=3, duration=50),
        "webp lossy": _saved("WEBP"),
        "webp lossless": _saved("WEBP", lossless=True),
        "webp alpha": _saved("WEBP", "RGBA", exif=_turned()),
        "webp animation": _saved("WEBP", frames=3, duration=50),
        "bmp": _saved("BMP"),
        "bmp palette": _saved("BMP", "P"),
        "gif": _saved("GIF", "P"),
        "gif animation": _saved("GIF", "P", frames=3, duration=50),
        "tiff": _saved("TIFF"),
        "tiff deflate": _saved("TIFF", compression="tiff_adobe_deflate"),
        "tiff lzw": _saved("TIFF", compression="tiff_lzw"),
        "tiff jpeg": _saved("TIFF", compression="jpeg"),
        "tiff pages": _saved("TIFF", frames=3),
        "tiff 16 bits": _by_opencv(".tiff", deep=True, alpha=True),
        "avif": _saved("AVIF"),
        "avif alpha": _saved("AVIF", "RGBA"),
        "avif sequence": _saved("AVIF", frames=3),
        "jpeg2000": _saved("JPEG2000"),
        "jpeg2000 tiles": _saved("JPEG2000", tile_size=(16, 16)),
        "jpeg2000 16 bits": _by_opencv(".jp2", deep=True),
        "pbm text": b"P1\n# a comment\n8 2\n" + b"1 0 " * 8 + b"\n",
        "pgm text": b"P2 8 2 255\n" + b"7 250 " * 8 + b"\n",
        "pbm": _saved("PPM", "1"),
        "pgm": b"P5\n%d %d\n255\n" % (WIDTH, HEIGHT) + grey.tobytes(),
        "ppm": _saved("PPM"),
        "pam": b"P7\nWIDTH %d\nHEIGHT %d\nDEPTH 1\nMAXVAL 255\nTUPLTYPE GRAYSCALE\nENDHDR\n" % (WIDTH, HEIGHT)
        + grey.tobytes(),
    }


def _turned() -> Image.Exif:
    """Return EXIF data that ask for a turn."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def mutants(seed: bytes, num: int, random_seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield (what was done, file): each place of a side lies once, bytes of the header change, parts are doubled.

    Args:
        seed: a valid file.
        num: how many files with bytes changed at random.
        random_seed: which.
    """
    yield from _lies(seed)
    chance = random.Random(random_seed)
    for number in range(num):
        data = bytearray(seed)
        for _ in range(chance.choice((1, 1, 2, 4))):
            at = chance.randrange(min(len(data), chance.choice((40, 400, 10**6))))
            data[at] = chance.choice((0, 1, 2, 4, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        yield f"random {number}", checksums_mended(bytes(data)) if number % 2 else bytes(data)
    for number in range(num // 4):
        start = chance.randrange(min(len(seed), 300))
        end = min(len(seed), start + chance.choice((1, 4, 12, 20, 60)))
        yield f"doubled {number}", seed[:end] + seed[start:end] + seed[end:]
        yield f"left out {number}", seed[:start] + seed[end:]


def _lies(seed: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield files in which one place that may hold a side says another."""
    for side in (WIDTH, HEIGHT):
        for value in (side, side - 1):  # some formats store the side less one
            for form in (">I", "<I", ">H", "<H"):
                true = struct.pack(form, value)
                at = seed.find(true)
                while 0 <= at < 600:
                    for lie in LIES:
                        if lie < 1 << 8 * len(true):
                            changed = seed[:at] + struct.pack(form, lie) + seed[at + len(true) :]
                            yield f"{form} at {at} says {lie}", checksums_mended(changed)
                    at = seed.find(true, at + 1)
        text = str(side).encode()
        at = seed.find(text)
        while 0 <= at < 60:
            yield f"text at {at} says 30000", seed[:at] + b"30000" + seed[at + len(text) :]
            at = seed.find(text, at + 1)


def checksums_mended(data: bytes) -> bytes:
    """Return a PNG with the right checksum behind each chunk; other files as they are."""
    if data[:4] != b"\x89PNG":
        return data
    out, at = [data[:8]], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        inner = data[at + 4 : at + 8 + length]
        out.append(struct.pack(">I", length) + inner + struct.pack(">I", zlib.crc32(inner)))
        at += 12 + length
    return b"".join(out)
