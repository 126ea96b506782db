"""JSON and base64 from strangers: typed, of bounded size, no key twice, no NaN; every fault is the sender's.

Everything here takes time in proportion to the text, and no single step of it takes more than some 10 ms: long texts
are read beside the event loop, see `eyas.serve.blocking`, and a step in C holds up the whole process while it runs.
"""

from __future__ import annotations

import binascii
import re
from functools import cache
from typing import Any, TypeVar

import msgspec

from eyas.serve.errors import ServeError

T = TypeVar("T")
MOST_TEXTS = 50_000  # texts in a body, keys among them; a list of 10,000 class names is allowed
MOST_OBJECTS = 5_000
Scalar = str | int | float | bool | None
_ENCODER = msgspec.json.Encoder()  # an image of 300 objects takes a tenth of the time that json takes for it
_SLICE = 2**20  # letters of base64 that are decoded in one step
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_PREFIX = re.compile(r"data:[\w/+.-]*(?:;[\w=-]+)*;base64,", re.ASCII)
_NO_MARK = bytes(each for each in range(256) if each not in b"{}")


def parse(body: bytes | memoryview, kind: type[T], *, most: int) -> T:
    """Return the value of that type that the JSON text holds.

    Args:
        body: the text, UTF-8.
        kind: what msgspec makes of it; whatever is of another type ends the reading where it stands.
        most: most bytes.

    Raises:
        ServeError: it is too large, not UTF-8, no JSON or of another type, has too many parts or a key twice, NaN,
            Infinity, or a number too large.
    """
    if len(body) > most:
        raise ServeError("too_large", f"The JSON is larger than {most} bytes; raw and multipart bodies may be larger.")
    data = bytes(body)
    _check_keys(data)
    try:
        return _decoder(kind).decode(data)  # type: ignore[no-any-return, arg-type] # a type is hashable
    except UnicodeDecodeError:
        raise ServeError("invalid", "The body is not UTF-8.") from None
    except RecursionError:
        raise ServeError("invalid", "The JSON is nested too deeply.") from None
    except msgspec.ValidationError as error:
        raise ServeError("invalid", f"The JSON has a value of the wrong type: {_shown(error)}.") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise ServeError("invalid", f"The body is not valid JSON: {_shown(error)}.") from None


def _shown(error: Exception) -> str:
    return ascii(str(error))[1:-1][:200]


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def _check_keys(data: bytes) -> None:
    """Refuse an object that has a key twice, of which parsers keep one or the other; and too many parts.

    What is no JSON passes, or is refused for another reason than it deserves: the parser comes afterwards.
    """
    if data.count(b"{") > MOST_OBJECTS:
        raise ServeError("invalid", f"The JSON has more than {MOST_OBJECTS} objects.")
    plain = data
    if b"\\" in data:  # no quote that is left is a part of a text, and every letter is at its place
        plain = data.replace(b"\\\\", b"\\.").replace(b'\\"', b"\\.")
    if plain.count(b'"') > 2 * MOST_TEXTS:
        raise ServeError("invalid", f"The JSON has more than {MOST_TEXTS} strings.")
    parts = plain.split(b'"')
    opened: list[set[bytes]] = []
    at = 0
    for number, part in enumerate(parts):
        if number % 2 == 0:
            for mark in part.translate(None, _NO_MARK):
                if mark == 0x7B:
                    opened.append(set())
                elif opened:
                    opened.pop()
        elif opened and number + 1 < len(parts) and parts[number + 1][:32].lstrip()[:1] == b":":
            key = _key(data[at : at + len(part)])
            if key in opened[-1]:
                raise ServeError("invalid", "The JSON has an object with a duplicate key.")
            opened[-1].add(key)
        at += len(part) + 1


def _key(text: bytes) -> bytes:
    r"""Return the key that is meant: "\u0061" is "a"."""
    if b"\\" not in text:
        return text
    try:
        return msgspec.json.decode(b'"%b"' % text, type=str).encode()
    except (msgspec.DecodeError, ValueError):
        return text


def dump(value: Any) -> bytes:
    """Return the value as JSON: UTF-8, without spaces. No NaN may be in it: it would become null."""
    return _ENCODER.encode(value)


def from_base64(text: str, where: str = "The image") -> bytes:
    """Return the bytes that base64 stands for, in time that only its length decides.

    Args:
        text: standard or URL-safe; a data URL's prefix, white space and missing padding are allowed.
        where: what it is, for the error.

    Raises:
        ServeError: it is no base64.
    """
    if text.startswith("data:") and (match := _PREFIX.match(text[:256])):
        text = text[match.end() :]
    try:
        letters = text.encode("ascii").translate(_URL_SAFE, b"\r\n\t ")
        letters += b"=" * (-len(letters) % 4)
        if letters.find(b"=", 0, len(letters) - 2) >= 0:
            raise ValueError("padding within")
        slices = range(0, len(letters), _SLICE)
        return b"".join([binascii.a2b_base64(letters[at : at + _SLICE], strict_mode=True) for at in slices])
    except (binascii.Error, ValueError):
        raise ServeError("invalid", f"{where} is not valid base64.") from None
