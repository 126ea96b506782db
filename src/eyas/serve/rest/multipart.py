"""The parts of a multipart body, split where its boundary stands: so many parts, and no more, are ever looked at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from python_multipart.multipart import parse_options_header

from eyas.serve.errors import ServeError

HEADER = 8 * 2**10  # most bytes of a part's own headers


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
        raise ServeError("invalid", "The multipart body has no boundary, or too long a one.")
    return list(_parts(body, b"--" + boundary, most))


def _parts(body: bytes, mark: bytes, most: int) -> Iterator[Part]:
    malformed = ServeError("invalid", "The multipart body is malformed.")
    if not body.startswith(mark):  # what comes before the first boundary is nobody's
        start = body.find(b"\r\n" + mark)
        if start < 0:
            raise malformed
        body = body[start + 2 :]
    pieces = body[len(mark) :].split(b"\r\n" + mark, most + 1)
    if len(pieces) > most + 1:
        raise ServeError("invalid", f"The multipart body has more than {most} parts.")
    if not pieces.pop().startswith(b"--"):
        raise malformed
    for piece in pieces:
        rest, newline, piece = piece.partition(b"\r\n")
        end = -2 if piece.startswith(b"\r\n") else piece.find(b"\r\n\r\n", 0, HEADER)
        if rest.strip(b" \t") or not newline or end == -1:
            raise malformed
        yield _part(piece[: max(end, 0)], piece[end + 4 :])


def _part(head: bytes, content: bytes) -> Part:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-disposition":
            options = parse_options_header(value.strip())[1]
            if b"name" in options:
                return Part(options[b"name"].decode("utf-8", "replace"), b"filename" in options, content)
    raise ServeError("invalid", "A part of the multipart body has no name: Content-Disposition: form-data; name=...")
