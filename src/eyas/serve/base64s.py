"""Base64 as clients send it: with line breaks, URL-safe, without padding, as a data URL."""

from __future__ import annotations

import base64
import binascii
import re

from eyas.serve.errors import ServeError

_SPACE = re.compile(r"[\r\n\t ]+")
_PREFIX = re.compile(r"data:[\w/+.-]*(?:;[\w=-]+)*;base64,", re.ASCII)


def decode(text: str, where: str = "The picture") -> bytes:
    """Return the bytes that the text stands for.

    Args:
        text: base64, standard or URL-safe; a data URL's prefix, white space and missing padding are allowed.
        where: what it is, for the error.

    Raises:
        ServeError: it is no base64.
    """
    if text.startswith("data:") and (match := _PREFIX.match(text[:256])):
        text = text[match.end() :]
    text = _SPACE.sub("", text)
    text = text.replace("-", "+").replace("_", "/")
    text += "=" * (-len(text) % 4)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ServeError("invalid", f"{where} is no base64.") from None
