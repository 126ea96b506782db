"""Base64 as clients send it: with line breaks, URL-safe, without padding, as a data URL."""

from __future__ import annotations

import binascii
import re

from eyas.serve.errors import ServeError

_SLICE = 2**20  # letters that are decoded in one step, which nothing else of the process runs beside
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_PREFIX = re.compile(r"data:[\w/+.-]*(?:;[\w=-]+)*;base64,", re.ASCII)


def decode(text: str, where: str = "The image") -> bytes:
    """Return the bytes that the text stands for, in time that only its length decides.

    Args:
        text: base64, standard or URL-safe; a data URL's prefix, white space and missing padding are allowed.
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
        raise ServeError("invalid", f"{where} is no base64.") from None
