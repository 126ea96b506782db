"""A detector's one input in the Open Inference Protocol, in its encodings: raw bytes, JSON, typed values.

"images" is UINT8 [N, H, W, 3] (images of any one size) or BYTES [N] (JPEG, PNG, WebP files). A shape is believed only
after it was held against the bytes that really came: a shape of 2^62 costs nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np

from eyas.serve.errors import ServeError, quoted
from eyas.serve.limits import Limits, check_count
from eyas.types import UInt8Array

IMAGES, BYTES = "images", "BYTES"
DATATYPES = (
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64"),
    BYTES,
)
MAX_TENSORS = 64  # inputs, and outputs, of a request
MAX_RANK = 8
MAX_SIZE = 2**40  # numbers: more than any request holds, and far below what an array's size is counted in
_RANK = 4  # of pixels
# Values, or bytes of text, that are read in one step, which nothing else of the process runs beside.
_SLICE = 64 * 2**10
_NUMBERS = msgspec.json.Decoder(list[Annotated[int, msgspec.Meta(ge=0, le=255)]])

Shape = tuple[int, ...]
Images = tuple[bytes | UInt8Array, ...]  # files, or pixels [height, width, 3]


def check_names(names: Sequence[str]) -> None:
    """Refuse inputs that are not a detector's one."""
    for name, count in Counter(names).items():
        if count > 1:
            raise ServeError("invalid", f"The input {quoted(name)} is given twice.")
    if list(names) != [IMAGES]:
        raise ServeError("invalid", f"A detector has one input, '{IMAGES}'; given: {quoted(', '.join(names)[:60])}.")


def checked_shape(datatype: str, shape: Sequence[Any], limits: Limits) -> Shape:
    """Return the input's shape, which no value has been looked at for.

    Raises:
        ServeError: datatype and shape are not those of images, or of too many.
    """
    if datatype not in DATATYPES:
        raise ServeError("invalid", f"The tensor '{IMAGES}' has the unknown datatype {quoted(datatype)}.")
    if len(shape) > MAX_RANK:
        raise ServeError("invalid", f"The tensor '{IMAGES}' has {len(shape)} dimensions.")
    if any(isinstance(size, bool) or not isinstance(size, int) or size < 0 for size in shape):
        raise ServeError("invalid", f"The shape of '{IMAGES}' must hold sizes, 0 or more.")
    if math.prod(size for size in shape if size) > MAX_SIZE:
        raise ServeError("invalid", f"The shape of '{IMAGES}' asks for more than a request can hold.")
    if datatype == BYTES:
        if len(shape) not in (1, 2) or list(shape[1:]) not in ([], [1]):
            raise ServeError("invalid", f"'{IMAGES}' of type BYTES must have the shape [N], one file each.")
    elif datatype != "UINT8":
        raise ServeError("invalid", f"'{IMAGES}' is UINT8 or BYTES, not {datatype}.")
    elif len(shape) != _RANK or shape[3] != 3 or 0 in shape:
        raise ServeError("invalid", f"'{IMAGES}' of type UINT8 must have the shape [N, height, width, 3].")
    check_count(shape[0], limits)
    return tuple(shape)


def from_raw(datatype: str, shape: Shape, data: bytes | memoryview) -> Images:
    """Return the images in raw bytes: pixels, or files with a length of 4 bytes before each.

    Raises:
        ServeError: the bytes are not what the shape says.
    """
    if datatype == BYTES:
        return _framed(data, shape[0])
    count = math.prod(shape)
    if len(data) != count:
        raise ServeError("invalid", f"The tensor '{IMAGES}' has {len(data)} bytes; its shape asks for {count}.")
    return tuple(np.frombuffer(data, np.uint8).reshape(shape))


def _framed(data: bytes | memoryview, count: int) -> tuple[bytes, ...]:
    items: list[bytes] = []
    at, end = 0, len(data)
    view = memoryview(data)
    while at < end and len(items) < count:
        size = int.from_bytes(view[at : at + 4], "little")
        if at + 4 > end or at + 4 + size > end:
            raise ServeError("invalid", f"An item of '{IMAGES}' is said to be longer than what was sent.")
        items.append(bytes(view[at + 4 : at + 4 + size]))
        at += 4 + size
    if at < end:
        raise ServeError("invalid", f"The tensor '{IMAGES}' has more values than the {count} of its shape.")
    return from_files((count,), items)


def from_files(shape: Shape, files: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return the files, which must be as many as the shape says."""
    _check_values(len(files), shape)
    return tuple(files)


def from_values(shape: Shape, values: Sequence[int]) -> Images:
    """Return the images of a flat row of whole numbers.

    Raises:
        ServeError: there are more or fewer than the shape says, or one does not fit.
    """
    _check_values(len(values), shape)
    parts = []
    for at in range(0, len(values), _SLICE):
        part = np.array(values[at : at + _SLICE], np.int64)
        if part.min() < 0 or part.max() > 255:
            raise ServeError("invalid", f"A value of '{IMAGES}' does not fit into UINT8.")
        parts.append(part.astype(np.uint8))
    return tuple(np.concatenate(parts).reshape(shape))


def from_text(shape: Shape, text: bytes) -> Images:
    """Return the images whose numbers a JSON list holds, flat or nested; they are read slice by slice.

    Raises:
        ServeError: it is nested unevenly, has more or fewer values than the shape says, or one that does not fit.
    """
    wrong = ServeError("invalid", f"A value of '{IMAGES}' is no UINT8, or does not fit into it.")
    if b'"' in text or b"{" in text:
        raise wrong
    close = text.translate(None, b" \t\r\n")
    if not _is_even(close):
        raise ServeError("invalid", "The data is nested unevenly.")
    flat = close.translate(None, b"[]")
    _check_values(flat.count(b",") + bool(flat), shape)
    parts, at = [], 0
    while at < len(flat):
        end = flat.find(b",", at + _SLICE)
        end = len(flat) if end < 0 else end
        try:
            parts.append(np.array(_NUMBERS.decode(b"[%b]" % flat[at:end]), np.uint8))
        except (msgspec.DecodeError, ValueError, OverflowError):
            raise wrong from None
        at = end + 1
    return tuple(np.concatenate(parts).reshape(shape))


def _is_even(text: bytes) -> bool:
    """Return whether between two numbers as many lists begin as end; else there are lists beside numbers."""
    for depth in range(1, _RANK + 1):
        ends, begins = b"]" * depth + b",", b"," + b"[" * depth
        count = text.count(ends)
        if text.count(begins) != count or text.count(ends + begins[1:]) != count:
            return False
        if not count:
            return True
    return False


def _check_values(found: int, shape: Shape) -> None:
    if found != math.prod(shape):
        words = f"The tensor '{IMAGES}' has {found} values; its shape asks for {math.prod(shape)}."
        raise ServeError("invalid", words)
