"""Images in a body that holds more than one image file: JSON with base64 or (where allowed) URLs, multipart."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from starlette.requests import Request as Http

from eyas.serve import base64s, jsons
from eyas.serve.budget import Held
from eyas.serve.desk import Desk
from eyas.serve.errors import Refused, ServeError
from eyas.serve.http import multipart
from eyas.serve.http.middleware import context_of
from eyas.serve.http.options import Asked, asked, once
from eyas.serve.http.urls import Fetcher
from eyas.serve.limits import KINDS, Limits

JSON = "application/json"
MULTIPART = "multipart/form-data"
FORM_FIELDS, FORM_FIELD = 16, 16 * 1024  # how many fields a form has, and of how many bytes
Fields = dict[str, jsons.Scalar | list[str]]


class Body(NamedTuple):
    """What a body holds.

    Attributes:
        images: the files; b"" for one that is refused.
        asked: what is asked of the answer.
        refused: number of an image -> why it can't be had.
    """

    images: tuple[bytes, ...]
    asked: Asked
    refused: Mapping[int, Refused] = MappingProxyType({})


async def read(
    http: Http, limits: Limits, desk: Desk, fetch: Fetcher | None, *, many: bool, annotate: bool = False
) -> Body:
    """Return the images of the request, and what it asks.

    Args:
        http: the request.
        limits: what a client may send.
        desk: where a large body is read.
        fetch: gets an image from a URL; None where URLs are off.
        many: whether the address takes several images.
        annotate: whether the annotated image is wanted.

    Raises:
        ServeError: the body is of no kind that is served, or malformed.
    """
    content_type = http.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    query = once(http.query_params.multi_items())
    if kind == JSON:
        body = await json_body(http, limits)
        given = await desk.read(len(body), _from_json, body, query, limits, many, annotate)
        return await _fetched(given, limits, fetch, many, context_of(http.scope).held) if given.urls else given.body
    if kind == MULTIPART:
        body = await http.body()
        return await desk.read(len(body), _from_form, body, content_type, query, limits, many, annotate)
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
            raise ServeError("too_large", f"JSON may have {limits.json} bytes; raw and multipart bodies may have more.")
        parts.append(part)
    return b"".join(parts)


class _Given(NamedTuple):
    """What JSON holds: images, or where they are to be fetched from."""

    body: Body
    urls: tuple[str, ...] = ()


def _merged(query: Mapping[str, Any], fields: Mapping[str, Any], annotate: bool) -> Asked:
    """Return what query and body ask together; a field in both is refused."""
    twice = sorted(set(query) & set(fields))
    if twice:
        raise ServeError("invalid", f"'{twice[0]}' is given in the query and in the body.")
    return asked({**query, **fields}, annotate)


def _from_json(body: bytes, query: Mapping[str, Any], limits: Limits, many: bool, annotate: bool) -> _Given:
    fields = jsons.parse(body, Fields, most=limits.json)
    names = ("images", "urls") if many else ("image", "url")
    given = [(name, fields.pop(name)) for name in names if name in fields]
    found = _merged(query, fields, annotate)
    if len(given) != 1:
        raise ServeError("invalid", f"The JSON needs either '{names[0]}' (base64) or '{names[1]}'.")
    name, value = given[0]
    if (many and not value) or not isinstance(value, list if many else str):
        raise ServeError("invalid", f"'{name}' must be {'a list of texts' if many else 'a text'}.")
    values = value if isinstance(value, list) else [str(value)]
    if len(values) > limits.images:
        raise ServeError("too_large", f"{len(values)} images; at most {limits.images} are allowed.")
    if name == names[1]:
        return _Given(Body((), found), tuple(values))
    images: list[bytes] = []
    refused: dict[int, Refused] = {}
    for number, each in enumerate(values):
        try:
            images.append(base64s.decode(each))
        except ServeError as error:
            _refuse_alone(error, number, many, images, refused)
    return _Given(Body(tuple(images), found, refused))


async def _fetched(given: _Given, limits: Limits, fetch: Fetcher | None, many: bool, held: Held) -> Body:
    """Return the body with the images that lie at the URLs."""
    if fetch is None:
        raise ServeError("forbidden", "This server does not fetch images from URLs; send the image itself.")
    images: list[bytes] = []
    refused: dict[int, Refused] = {}
    for number, url in enumerate(given.urls):
        try:
            image = await fetch(url)
            held.take(len(image))
            images.append(image)
        except ServeError as error:
            _refuse_alone(error, number, many, images, refused)
        if sum(map(len, images)) > limits.body:
            raise ServeError("too_large", f"The URLs' images have more than {limits.body} bytes together.")
    return Body(tuple(images), given.body.asked, refused)


def _refuse_alone(error: ServeError, number: int, many: bool, images: list[bytes], refused: dict[int, Refused]) -> None:
    """Refuse one image of several; the error is the request's where it has only one."""
    if not many:
        raise error
    images.append(b"")
    refused[number] = Refused(error.kind, error.message)


def _from_form(
    body: bytes, content_type: str, query: Mapping[str, Any], limits: Limits, many: bool, annotate: bool
) -> Body:
    most = limits.images if many else 1
    parts = multipart.split(body, content_type, most + FORM_FIELDS)
    images = tuple(part.content for part in parts if part.file)
    if len(images) > most:
        raise ServeError("invalid", f"The multipart body has {len(images)} files; at most {most} are allowed.")
    pairs = [(part.name, part.content) for part in parts if not part.file]
    if any(len(content) > FORM_FIELD for _, content in pairs):
        raise ServeError("invalid", f"A field of the multipart body has more than {FORM_FIELD} bytes.")
    fields = once([(name, content.decode("utf-8", "replace")) for name, content in pairs])
    if not images:
        raise ServeError("invalid", "There is no file among the parts of the multipart body.")
    return Body(images, _merged(query, fields, annotate))
