"""The parts of a multipart body, split where its boundary stands: so many parts, and no more, are ever looked at."""

from __future__ import annotations

from typing import NamedTuple

from python_multipart.multipart import parse_options_header

from eyas.serve.errors import ServeError

HEADER = 8 * 2**10  # most bytes of a part's own headers
LINE = 256  # of the line that its boundary begins
_STEP = 2**20


class Part(NamedTuple):
    """One part.

    Attributes:
        name: of its field.
        file: whether it is a file.
        content: its bytes.
    """

    name: str
    file: bool
    content: bytes


def split(body: bytes, content_type: str, most: int) -> list[Part]:
    """Return the parts of the body (RFC 7578).

    Args:
        body: all of it.
        content_type: the request's, which names the boundary.
        most: most parts.

    Raises:
        ServeError: it is malformed, or has too many parts.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not 0 < len(boundary) <= 200:
        raise ServeError("invalid", "The multipart body has no boundary, or one that is too long.")
    mark = b"\r\n--" + boundary
    malformed = ServeError("invalid", "The multipart body is malformed.")
    at = -2 if body.startswith(mark[2:]) else _find(body, mark, 0)  # what comes before the first one is nobody's
    if at == -1:
        raise malformed
    end = at + len(mark)
    found: list[Part] = []
    while not body.startswith(b"--", end):
        start = body.find(b"\r\n", end, end + LINE)
        at = _find(body, mark, start) if start >= 0 and not body[end:start].strip(b" \t") else -1
        if at < 0:
            raise malformed
        if len(found) >= most:
            raise ServeError("invalid", f"The multipart body has more than {most} parts.")
        found.append(_read(body, start, at))
        end = at + len(mark)
    return found


def _find(body: bytes, mark: bytes, at: int) -> int:
    """Return where the mark stands next, -1 where nowhere; in steps, between which other threads get their turn."""
    for start in range(at, len(body), _STEP):
        found = body.find(mark, start, start + _STEP + len(mark))
        if found >= 0:
            return found
    return -1


def _read(body: bytes, start: int, end: int) -> Part:
    """Return the part between the ends of its boundaries' lines: headers, an empty line, content."""
    blank = body.find(b"\r\n\r\n", start, min(end, start + HEADER))
    if blank < 0:
        raise ServeError("invalid", "The headers of a part of the multipart body are incomplete or too long.")
    return _part(body[start + 2 : blank], body[blank + 4 : end])


def _part(head: bytes, content: bytes) -> Part:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-disposition":
            options = parse_options_header(value.strip())[1]
            if b"name" in options:
                return Part(options[b"name"].decode("utf-8", "replace"), b"filename" in options, content)
    raise ServeError("invalid", "A part of the multipart body has no name: Content-Disposition: form-data; name=...")
