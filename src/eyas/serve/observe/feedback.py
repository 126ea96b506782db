"""What somebody says about an answer: the body of `POST /v1/feedback`."""

from __future__ import annotations

from typing import Any

import msgspec

from eyas.renamed import OLD_KEYS
from eyas.serve import jsons
from eyas.serve.errors import ServeError, quoted
from eyas.serve.limits import check_id

VERDICTS = ("correct", "wrong", "missed", "unsure")
MOST = 2**20  # bytes: a thousand objects with the longest names have half of that
FIELDS = ("id", "image", "verdict", "objects", "note")


class TrueObject(msgspec.Struct, forbid_unknown_fields=True):
    """An object that is really there: xyxy in pixels, and its class."""

    box: tuple[float, float, float, float]
    name: str = msgspec.field(name="class")


def read_feedback(body: bytes) -> tuple[str, dict[str, Any]]:
    """Return the request's id and what is said about it.

    Raises:
        ServeError: it is too large, or a field is missing, unknown or malformed.
    """
    fields = jsons.parse(body, dict[str, str | int | list[TrueObject] | None], most=MOST)
    fields = {OLD_KEYS.get(name, name): value for name, value in fields.items()}
    unknown = [name for name in fields if name not in FIELDS]
    if unknown:
        raise ServeError("invalid", f"Unknown field {quoted(unknown[0])}; the fields are {', '.join(FIELDS)}.")
    if None in fields.values():
        raise ServeError("invalid", "A field is null; leave it out instead.")
    request_id, image = fields.get("id"), fields.get("image", 0)
    verdict, note, objects = fields.get("verdict"), fields.get("note", ""), fields.get("objects")
    if not isinstance(request_id, str):
        raise ServeError("invalid", "'id' must be the id of a request.")
    check_id(request_id)
    if not isinstance(image, int) or not 0 <= image < 100_000:
        raise ServeError("invalid", "'image' must be the index of an image of the request, from 0.")
    if verdict is not None and verdict not in VERDICTS:
        raise ServeError("invalid", "'verdict' must be one of " + ", ".join(VERDICTS) + ".")
    if not isinstance(note, str) or len(note) > 1000:
        raise ServeError("invalid", "'note' must be text of at most 1000 characters.")
    if objects is not None and (not isinstance(objects, list) or len(objects) > 1000):
        words = "'objects' must be a list of at most 1000 {'box': [x0, y0, x1, y1], 'class': name}."
        raise ServeError("invalid", words)
    if isinstance(objects, list) and any(len(each.name) > 256 or max(map(abs, each.box)) > 1e6 for each in objects):
        raise ServeError("invalid", "A box must be within a million pixels, and a class name at most 256 characters.")
    if verdict is None and objects is None and not note:
        raise ServeError("invalid", "Feedback needs a verdict, objects or a note.")
    told = {"image": image, "verdict": verdict, "objects": msgspec.to_builtins(objects), "note": note}
    return request_id, told
