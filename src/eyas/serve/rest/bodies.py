"""Pictures in a body that holds more than one picture file: JSON with base64 or (where allowed) URLs, multipart."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from starlette.datastructures import UploadFile
from starlette.requests import Request as Http

from eyas.serve import base64s, jsons
from eyas.serve.errors import Refused, ServeError
from eyas.serve.limits import KINDS, Limits
from eyas.serve.rest.options import Asked, asked
from eyas.serve.urls import Fetcher

JSON = "application/json"
MULTIPART = "multipart/form-data"


class Body(NamedTuple):
    """What a body holds.

    Attributes:
        pictures: the files; b"" for one that is refused.
        asked: what is asked of the answer.
        refused: number of a picture -> why it can't be had.
    """

    pictures: tuple[bytes, ...]
    asked: Asked
    refused: Mapping[int, Refused] = MappingProxyType({})


async def read(http: Http, limits: Limits, fetch: Fetcher | None, *, many: bool, annotate: bool = False) -> Body:
    """Return the pictures of the request, and what it asks.

    Args:
        http: the request.
        limits: what a client may send.
        fetch: gets a picture from a URL; None where URLs are off.
        many: whether the address takes several pictures.
        annotate: whether the annotated picture is wanted.

    Raises:
        ServeError: the body is of no kind that is served, or malformed.
    """
    kind = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == JSON:
        return await _from_json(http, limits, fetch, many, annotate)
    if kind == MULTIPART:
        return await _from_form(http, limits, many, annotate)
    known = ", ".join([JSON, MULTIPART] if many else [*(f"image/{each}" for each in KINDS), JSON, MULTIPART])
    raise ServeError("unsupported", f"The Content-Type must be one of {known}.")


def _merged(http: Http, fields: Mapping[str, Any], annotate: bool) -> Asked:
    """Return what query and body ask together; a field in both is refused."""
    query = dict(http.query_params)
    twice = sorted(set(query) & set(fields))
    if twice:
        raise ServeError("invalid", f"'{twice[0]}' is given in the query and in the body.")
    return asked({**query, **fields}, annotate)


async def _from_json(http: Http, limits: Limits, fetch: Fetcher | None, many: bool, annotate: bool) -> Body:
    fields = jsons.parse_object(await http.body(), depth=limits.json_depth)
    names = ("images", "urls") if many else ("image", "url")
    given = [(name, fields.pop(name)) for name in names if name in fields]
    found = _merged(http, fields, annotate)
    if len(given) != 1:
        raise ServeError("invalid", f"The JSON needs either '{names[0]}' (base64) or '{names[1]}'.")
    name, value = given[0]
    values = value if many else [value]
    if not isinstance(values, list) or not values or not all(isinstance(each, str) for each in values):
        raise ServeError("invalid", f"'{name}' must be {'a list of texts' if many else 'a text'}.")
    if len(values) > limits.pictures:
        raise ServeError("too_large", f"{len(values)} pictures; at most {limits.pictures} are allowed.")
    if name != names[0] and fetch is None:
        raise ServeError("forbidden", "This server does not fetch pictures from URLs; send the picture itself.")
    pictures: list[bytes] = []
    refused: dict[int, Refused] = {}
    for number, each in enumerate(values):
        try:
            pictures.append(base64s.decode(each) if name == names[0] or fetch is None else await fetch(each))
        except ServeError as error:
            if not many:
                raise
            pictures.append(b"")
            refused[number] = Refused(error.kind, error.message)
    return Body(tuple(pictures), found, refused)


async def _from_form(http: Http, limits: Limits, many: bool, annotate: bool) -> Body:
    most = limits.pictures if many else 1
    if "boundary=" not in http.headers.get("content-type", ""):
        raise ServeError("invalid", "The multipart body has no boundary.")
    pictures: list[bytes] = []
    fields: dict[str, str] = {}
    async with http.form(max_files=most, max_fields=len(fields) + 16, max_part_size=16 * 1024) as form:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                pictures.append(await value.read())
            elif name in fields:
                raise ServeError("invalid", f"The field {name[:64]!a} is given twice.")
            else:
                fields[name] = value
    if not pictures:
        raise ServeError("invalid", "There is no file among the parts of the multipart body.")
    return Body(tuple(pictures), _merged(http, fields, annotate))
