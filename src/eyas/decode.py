"""Image files to pixels: JPEG by simplejpeg, everything else by OpenCV, always uint8 RGB, upright.

What is made of the less usual kinds:

- 16-bit images are scaled to 8 bits (65535 becomes 255), grey ones get three equal channels, palettes are looked up;
- transparent pixels are blended over white, which is what a browser or a labelling tool shows;
- CMYK and YCCK JPEGs become RGB by the plain product of ink coverages (no colour profile);
- the EXIF orientation of JPEG, PNG, WebP and TIFF is applied, so boxes drawn in a viewer fit;
- of an animation the first frame is taken;
- a truncated or damaged file is refused, never half-decoded to grey.
"""

from __future__ import annotations

from collections.abc import Sequence
from mmap import ACCESS_READ, mmap
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from eyas.decode_apart import decode_apart
from eyas.errors import UserError
from eyas.files import open_regular
from eyas.image_header import BadHeader, FileBytes, ImageHeader, pixels_only, read_header
from eyas.opencv_images import decode_by_opencv, row_blocks
from eyas.opencv_limits import MAX_PIXELS as MAX_PIXELS
from eyas.opencv_limits import opencv_limit
from eyas.types import UInt8Array

MAX_SCANS = 100  # of a progressive JPEG; the usual ones have about ten
SCANNED_PIXELS = 2_000_000_000  # pixels times scans, each of which costs about a decoding of its own

MAX_BYTES = 3 << 29  # of a file: so many pixels of four 16-bit channels, not compressed
# Decoded in a process of their own: what these take, or how long, is not told by their headers.
_APART = frozenset({"tiff", "avif", "jpeg2000", "gif"})
_REPLACE = "replace the file, or delete it and its labels"
# Oddities of a JPEG stream that change no pixel; every other complaint of the decoder means lost pixels.
_HARMLESS = ("extraneous bytes", "Unknown Adobe color transform", "Invalid SOS parameters")


class TooMuchMemory(UserError):
    """An image that takes more memory to decode than the process may have."""

    def __init__(self, where: str) -> None:
        super().__init__("Decoding the image needs more memory than is available.", where=where)


def decode(
    data: bytes, *, max_pixels: int = MAX_PIXELS, shrink: int = 1, fast: bool = False, where: str = ""
) -> UInt8Array:
    """Return the image in `data` as uint8 RGB [H, W, 3], upright.

    Args:
        data: the bytes of an image file.
        max_pixels: an image with more pixels is refused before it is decoded.
        shrink: the image is returned `shrink_factor(shrink)` times smaller, each pixel the mean of a square (sides
            are rounded up; the last pixel then covers a part of a square). A JPEG is decoded at that size, which is
            quicker. 1 asks for the very pixels.
        fast: decode a JPEG with the quicker transform and colour interpolation: an eighth less time, values off by two
            of 255 on average. For training; evaluation and deployment leave it off.
        where: the file's name, for the error.

    Raises:
        UserError: the bytes are empty, truncated, damaged, no image, or the image is too large.
        TooMuchMemory: this process may not have as much as it takes.
    """
    try:
        return _decode(data, max_pixels, shrink, fast, where)
    except MemoryError:
        raise TooMuchMemory(where) from None


def _decode(data: bytes, max_pixels: int, shrink: int, fast: bool, where: str) -> UInt8Array:
    """Return the image; see `decode`."""
    header = _header(data, where)
    check_pixels(header.height, header.width, max_pixels, where)
    if header.kind == "jpeg":
        image = _decode_jpeg(data, header, shrink, fast, where)
    else:
        image = _decode_other(data, header, where)
        # OpenCV has applied a TIFF's orientation already.
        _check_same(header.size if header.kind == "tiff" else (header.height, header.width), image.shape[:2], where)
        image = _shrunk(image, shrink)
    if header.orientation != 1 and header.kind != "tiff":
        image = upright(image, header.orientation)
    return image


def read_image(path: str | Path, *, max_pixels: int = MAX_PIXELS, below: Sequence[Path] = ()) -> UInt8Array:
    """Return the image in the file as uint8 RGB [H, W, 3], upright; see `decode` for the rules and errors."""
    return decode(read_bytes(path, below=below), max_pixels=max_pixels, where=str(path))


def read_bytes(path: str | Path, *, below: Sequence[Path] = ()) -> bytes:
    """Return the file's bytes.

    Args:
        path: the file.
        below: where it must lie, see `eyas.files.open_regular`.

    Raises:
        UserError: it is missing, can't be opened, is no file but a device or pipe, is too large, or lies elsewhere.
    """
    try:
        with open_regular(path, max_bytes=MAX_BYTES, below=below) as file:
            return file.read()
    except OSError as error:
        raise UserError(f"The image can't be read: {error.strerror}.", where=str(path)) from None


def image_size(data: bytes, *, where: str = "") -> tuple[int, int]:
    """Return the (height, width) that `decode` would return, from the header alone.

    Args:
        data: an image file's bytes.
        where: the file's name, for the error.

    Raises:
        UserError: no JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF, JPEG 2000 or PNM header was found.
    """
    return _header(data, where).size


def read_size(path: str | Path) -> tuple[int, int]:
    """Return the (height, width) of an image file; of a large file only the header's pages are read."""
    try:
        with open_regular(path) as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            return _header(data, str(path)).size
    except (OSError, ValueError):  # missing, or empty, which can't be mapped
        return image_size(read_bytes(path), where=str(path))


def _header(data: FileBytes, where: str) -> ImageHeader:
    """Return the header; a kind of image that is not known is refused even where OpenCV knows it.

    Else nobody would know how much memory it takes before it takes it.
    """
    try:
        return read_header(data)
    except BadHeader as error:
        raise _no_image(data, where, str(error)) from None


def check_pixels(height: int, width: int, max_pixels: int, where: str) -> None:
    """Refuse an image with more than `max_pixels` pixels, or none."""
    if height < 1 or width < 1:
        raise UserError(f"The image's header says {width} x {height} pixels.", where=where)
    if height * width > max_pixels:
        raise UserError(
            f"The image has {width} x {height} = {height * width / 1e6:.0f} million pixels.",
            expected=f"at most {max_pixels / 1e6:.0f} million (a guard against running out of memory)",
            where=where,
            fix=f"shrink or tile the image, or raise the cap: max_pixels={height * width}",
        )


def _check_same(said: tuple[int, int], found: tuple[int, ...], where: str) -> None:
    if tuple(found) != said:
        raise _damaged(f"its header says {said[1]} x {said[0]} pixels, and it holds {found[1]} x {found[0]}", where)


def _no_image(data: FileBytes, where: str, reason: str = "") -> UserError:
    """Return the error for bytes that no decoder takes."""
    problem = "The file is not a supported image, or it is damaged" if len(data) else "The file is empty"
    problem += f": {reason}." if reason and len(data) else "."
    return UserError(
        problem,
        expected="a complete JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF, JPEG 2000 or PNM file",
        where=where,
        fix=_REPLACE,
    )


def _damaged(complaint: str, where: str) -> UserError:
    """Return the error for an image whose data end early or make no sense."""
    return UserError(
        f"The image is truncated or damaged: {complaint}.",
        expected="a complete file",
        where=where,
        fix="copy the file again from its source, or delete it and its labels",
    )


# ---------------------------------------------------------------------------------------------------------- pixels


def shrink_factor(shrink: int) -> int:
    """Return the greatest of 1, 2, 4 and 8 that is at most `shrink`: how much smaller `decode` makes an image."""
    return int(min(8, 1 << (max(1, shrink).bit_length() - 1)))


def _shrunk(image: UInt8Array, shrink: int) -> UInt8Array:
    """Return the image averaged over squares of 2, 4 or 8 pixels; squares over the edge repeat the last pixel."""
    factor = shrink_factor(shrink)
    if factor == 1:
        return image
    height, width = -(-image.shape[0] // factor), -(-image.shape[1] // factor)
    below, right = height * factor - image.shape[0], width * factor - image.shape[1]
    if below or right:
        image = np.asarray(cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE), np.uint8)
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _decode_jpeg(data: bytes, header: ImageHeader, shrink: int, fast: bool, where: str) -> UInt8Array:
    """Return the JPEG's pixels as stored (not yet upright), 1, 2, 4 or 8 times smaller."""
    _check_scans(data, header, where)
    factor = shrink_factor(shrink)
    options: dict[str, int] = {"fastdct": fast, "fastupsample": fast}
    if factor > 1:
        options |= {"min_height": -(-header.height // factor), "min_width": -(-header.width // factor)}
    wanted = "CMYK" if header.channels == 4 else "RGB"
    try:
        _check_same((header.height, header.width), simplejpeg.decode_jpeg_header(data)[:2], where)
        try:
            pixels: UInt8Array = simplejpeg.decode_jpeg(data, wanted, **options)
        except ValueError as error:
            if not any(oddity in str(error) for oddity in _HARMLESS):
                raise
            pixels = simplejpeg.decode_jpeg(data, wanted, strict=False, **options)
    except (ValueError, KeyError) as error:  # KeyError: a colour space that the decoder can't name
        if "Insufficient memory" in str(error):
            raise MemoryError from None
        raise _damaged(str(error), where) from None
    return _cmyk_to_rgb(pixels, inverted=header.adobe) if wanted == "CMYK" else pixels


def _check_scans(data: bytes, header: ImageHeader, where: str) -> None:
    """Refuse a JPEG that takes its time: a scan of some bytes can go over all pixels again."""
    if not header.scans:
        return
    num, pixels = data.count(b"\xff\xda"), header.height * header.width
    most = min(MAX_SCANS, max(1, SCANNED_PIXELS // pixels))
    if num > most:
        raise UserError(
            f"The JPEG of {header.width} x {header.height} pixels has {num} scans.",
            expected=f"at most {most} (a guard against excessive decoding time)",
            where=where,
            fix="save it again as an ordinary JPEG",
        )


def _cmyk_to_rgb(cmyk: UInt8Array, *, inverted: bool) -> UInt8Array:
    """Return RGB = (1 - C)(1 - K), ...; Adobe's files store the complements (`inverted`)."""
    out = np.empty((*cmyk.shape[:2], 3), np.uint8)
    for rows in row_blocks(out):
        light = cmyk[rows] if inverted else 255 - cmyk[rows]
        product = light[..., :3].astype(np.uint16) * light[..., 3:]
        out[rows] = (product + 127) // 255
    return out


def _decode_other(data: bytes, header: ImageHeader, where: str) -> UInt8Array:
    """Return the pixels as OpenCV decodes them, made RGB and 8 bits deep."""
    try:
        if header.kind == "png":
            data = pixels_only(data)
        num = header.height * header.width
        apart = header.kind in _APART or num > opencv_limit()
        pixels = decode_apart(data, num) if apart else decode_by_opencv(data)
    except BadHeader as error:
        raise _damaged(str(error), where) from None
    except UserError as error:
        raise UserError(error.problem, expected=error.expected, where=where, fix=error.fix or _REPLACE) from None
    except cv2.error as error:
        raise _damaged(str(error.err), where) from None
    if pixels is None:
        # WebP's decoder has no other words for want of memory; it holds the pixels two times.
        np.empty((header.height, header.width, 2 * 4), np.uint8)
        raise _no_image(data, where)
    return pixels


def upright(image: UInt8Array, orientation: int) -> UInt8Array:
    """Return the image turned as its EXIF orientation (2..8) asks."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)
