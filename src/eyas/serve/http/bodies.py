"""Images in a body that holds more than one image file: JSON with base64 or (where allowed) URLs, multipart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from python_multipart.multipart import parse_options_header
from starlette.requests import Request as Http

from eyas.serve import jsons
from eyas.serve.errors import Refused, ServeError
from eyas.serve.http.middleware import context_of
from eyas.serve.http.urls import Fetcher
from eyas.serve.limits import KINDS, Limits
from eyas.serve.request_options import PLAIN, Asked, asked, once
from eyas.serve.service import Service

JSON = "application/json"
MULTIPART = "multipart/form-data"
FORM_FIELDS, FORM_FIELD = 16, 16 * 1024  # how many fields a form has, and of how many bytes
PART_HEADER = 8 * 2**10  # most bytes of a part's own headers
BOUNDARY_LINE = 256  # of the line that its boundary begins
_STEP = 2**20
Fields = dict[str, jsons.Scalar | list[str]]


@dataclass(slots=True)
class Body:
    """What a body holds.

    Attributes:
        images: the files; b"" for one that is refused.
        asked: what is asked of the answer.
        refused: number of an image -> why it can't be had.
    """

    images: list[bytes] = field(default_factory=list)
    asked: Asked = PLAIN
    refused: dict[int, Refused] = field(default_factory=dict)

    def refuse(self, error: ServeError, many: bool) -> None:
        """Refuse the next image alone; the error is the request's where it has only one."""
        if not many:
            raise error
        self.refused[len(self.images)] = Refused(error.kind, error.message)
        self.images.append(b"")


async def read(http: Http, service: Service, fetch: Fetcher | None, *, many: bool, annotate: bool = False) -> Body:
    """Return the images of the request, of which the address takes one or many, and what it asks.

    Raises:
        ServeError: the body is of no kind that is served, or malformed.
    """
    content_type = http.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    query, limits = once(http.query_params.multi_items()), service.limits
    if kind == JSON:
        data = await json_body(http, limits)
        body, urls = await service.desk.read(len(data), _from_json, data, query, limits, many, annotate)
        return body if urls is None else await _fetched(http, body, urls, limits, fetch, many)
    if kind == MULTIPART:
        data = await http.body()
        return await service.desk.read(len(data), _from_form, data, content_type, query, limits, many, annotate)
    known = ", ".join([JSON, MULTIPART] if many else [*(f"image/{each}" for each in KINDS), JSON, MULTIPART])
    raise ServeError("unsupported", f"The Content-Type must be one of {known}.")


async def json_body(http: Http, limits: Limits) -> bytes:
    """Return the body; what is too long for JSON is refused before it has arrived.

    Raises:
        ServeError: it is too large.
    """
    parts, size = [], 0
    async for part in http.stream():
        size += len(part)
        if size > limits.json:
            raise ServeError(
                "too_large", f"JSON bodies may have {limits.json} bytes; raw and multipart bodies may be larger."
            )
        parts.append(part)
    return b"".join(parts)


def _merged(query: Mapping[str, Any], fields: Mapping[str, Any], annotate: bool) -> Asked:
    """Return what query and body ask together; a field in both is refused."""
    twice = sorted(set(query) & set(fields))
    if twice:
        raise ServeError("invalid", f"'{twice[0]}' is given in both the query and the body.")
    return asked({**query, **fields}, annotate)


def _from_json(
    data: bytes, query: Mapping[str, Any], limits: Limits, many: bool, annotate: bool
) -> tuple[Body, list[str] | None]:
    """Return what the JSON holds, or in place of its images the URLs that they are to be fetched from."""
    fields = jsons.parse(data, Fields, most=limits.json)
    names = ("images", "urls") if many else ("image", "url")
    given = [(name, fields.pop(name)) for name in names if name in fields]
    body = Body(asked=_merged(query, fields, annotate))
    if len(given) != 1:
        raise ServeError("invalid", f"The JSON needs either '{names[0]}' (base64) or '{names[1]}'.")
    name, value = given[0]
    if (many and not value) or not isinstance(value, list if many else str):
        raise ServeError("invalid", f"'{name}' must be {'a list of texts' if many else 'a text'}.")
    values = value if isinstance(value, list) else [str(value)]
    if len(values) > limits.images:
        raise ServeError("too_large", f"{len(values)} images; at most {limits.images} are allowed.")
    if name == names[1]:
        return body, values
    for each in values:
        try:
            body.images.append(jsons.from_base64(each))
        except ServeError as error:
            body.refuse(error, many)
    return body, None


async def _fetched(
    http: Http, body: Body, urls: Iterable[str], limits: Limits, fetch: Fetcher | None, many: bool
) -> Body:
    """Return the body with the images that lie at the URLs."""
    if fetch is None:
        raise ServeError("forbidden", "This server does not fetch images from URLs; send the image itself.")
    for url in urls:
        try:
            image = await fetch(url)
            context_of(http.scope).held.take(len(image))
            body.images.append(image)
        except ServeError as error:
            body.refuse(error, many)
        if sum(map(len, body.images)) > limits.body:
            raise ServeError("too_large", f"The images at the URLs have more than {limits.body} bytes together.")
    return body


def _from_form(
    data: bytes, content_type: str, query: Mapping[str, Any], limits: Limits, many: bool, annotate: bool
) -> Body:
    most = limits.images if many else 1
    parts = split(data, content_type, most + FORM_FIELDS)
    images = [part.content for part in parts if part.file]
    if len(images) > most:
        raise ServeError("invalid", f"The multipart body has {len(images)} files; at most {most} are allowed.")
    pairs = [(part.name, part.content) for part in parts if not part.file]
    if any(len(content) > FORM_FIELD for _, content in pairs):
        raise ServeError("invalid", f"A field of the multipart body has more than {FORM_FIELD} bytes.")
    fields = once((name, content.decode("utf-8", "replace")) for name, content in pairs)
    if not images:
        raise ServeError("invalid", "The multipart body has no file part.")
    return Body(images, _merged(query, fields, annotate))


class FormPart(NamedTuple):
    """One part of a multipart body: the name of its field, whether it is a file, and its bytes."""

    name: str
    file: bool
    content: bytes


def split(body: bytes, content_type: str, most: int) -> list[FormPart]:
    """Return the parts of a multipart body (RFC 7578): no more of them are ever looked at than are allowed.

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
    found: list[FormPart] = []
    while not body.startswith(b"--", end):
        start = body.find(b"\r\n", end, end + BOUNDARY_LINE)
        at = _find(body, mark, start) if start >= 0 and not body[end:start].strip(b" \t") else -1
        if at < 0:
            raise malformed
        if len(found) >= most:
            raise ServeError("invalid", f"The multipart body has more than {most} parts.")
        found.append(_part(body, start, at))
        end = at + len(mark)
    return found


def _find(body: bytes, mark: bytes, at: int) -> int:
    """Return where the mark stands next, -1 where nowhere; in steps, between which other threads get their turn."""
    for start in range(at, len(body), _STEP):
        found = body.find(mark, start, start + _STEP + len(mark))
        if found >= 0:
            return found
    return -1


def _part(body: bytes, start: int, end: int) -> FormPart:
    """Return the part between the ends of its boundaries' lines: headers, an empty line, content."""
    blank = body.find(b"\r\n\r\n", start, min(end, start + PART_HEADER))
    if blank < 0:
        raise ServeError("invalid", "The headers of a part of the multipart body are incomplete or too long.")
    for line in body[start + 2 : blank].split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-disposition":
            options = parse_options_header(value.strip())[1]
            if b"name" in options:
                return FormPart(
                    options[b"name"].decode("utf-8", "replace"), b"filename" in options, body[blank + 4 : end]
                )
    raise ServeError("invalid", "A part of the multipart body has no name: Content-Disposition: form-data; name=...")
