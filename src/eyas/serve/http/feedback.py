"""What somebody says about an answer: `POST /v1/feedback`."""

from __future__ import annotations

from typing import Any

import msgspec

from eyas.serve import jsons
from eyas.serve.errors import ServeError
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
    unknown = [name for name in fields if name not in FIELDS]
    if unknown:
        raise ServeError("invalid", f"Unknown field {unknown[0][:64]!a}; the fields are {', '.join(FIELDS)}.")
    if None in fields.values():
        raise ServeError("invalid", "A field is null; leave it out instead.")
    request_id = fields.get("id")
    if not isinstance(request_id, str):
        raise ServeError("invalid", "'id' must be the id of a request.")
    check_id(request_id)
    image, verdict, note = fields.get("image", 0), fields.get("verdict"), fields.get("note", "")
    if not isinstance(image, int) or not 0 <= image < 100_000:
        raise ServeError("invalid", "'image' must be the number of an image of the request, from 0.")
    if verdict is not None and verdict not in VERDICTS:
        raise ServeError("invalid", "'verdict' is one of " + ", ".join(VERDICTS) + ".")
    if not isinstance(note, str) or len(note) > 1000:
        raise ServeError("invalid", "'note' must be a text of at most 1000 characters.")
    objects = _objects(fields.get("objects"))
    if verdict is None and objects is None and not note:
        raise ServeError("invalid", "Feedback needs a verdict, objects or a note.")
    return request_id, {"image": image, "verdict": verdict, "objects": objects, "note": note}


def _objects(value: str | int | list[TrueObject] | None) -> list[dict[str, Any]] | None:
    """Return the true objects that the feedback names, as the event log keeps them."""
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > 1000:
        raise ServeError(
            "invalid", "'objects' must be a list of at most 1000 {'box': [x0, y0, x1, y1], 'class': name}."
        )
    if any(len(each.name) > 256 or max(map(abs, each.box)) > 1e6 for each in value):
        raise ServeError("invalid", "A box must lie within a million pixels, and a class have at most 256 letters.")
    return [{"box": list(each.box), "class": each.name} for each in value]
