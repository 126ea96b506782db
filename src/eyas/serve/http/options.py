"""What a client may ask of a detection: fields of the query or of a JSON body, each checked and none ignored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from eyas.errors import suggest
from eyas.serve.api import Lane, Options
from eyas.serve.errors import ServeError
from eyas.serve.oip.detection import class_names, suppression
from eyas.serve.oip.tensors import quoted

FIELDS = ("model", "version", "conf", "iou", "suppression", "classes", "max_detections", "timeout", "priority")


@dataclass(frozen=True)
class Asked:
    """What the client asks.

    Attributes:
        model, version: as in `eyas.serve.api.Request`.
        options: thresholds and classes.
        timeout: seconds, None for the server's own.
        lane: from the priority.
    """

    model: str = ""
    version: str = ""
    options: Options = field(default_factory=Options)
    timeout: float | None = None
    lane: Lane = "interactive"


PLAIN = Asked()


def from_query(pairs: Sequence[tuple[str, str]], annotate: bool = False) -> Asked:
    """Return what a query string or the fields of a form ask."""
    if not pairs and not annotate:
        return PLAIN
    return asked(once(pairs), annotate)


def once(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Return the fields by name; one that is given twice is refused."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ServeError("invalid", f"{quoted(name)} is given twice.")
        found[name] = value
    return found


def asked(fields: Mapping[str, Any], annotate: bool = False) -> Asked:
    """Return what the fields ask; texts (of a query) and JSON's own types both do.

    Raises:
        ServeError: a field is unknown or has no sensible value.
    """
    for name in fields:
        if name not in FIELDS:
            near = suggest(name[:64], FIELDS) or f"; the fields are {', '.join(FIELDS)}"
            raise ServeError("invalid", f"Unknown field {quoted(name)}{near}.")
        if fields[name] is None:
            raise ServeError("invalid", f"'{name}' is null; leave it out instead.")
    kind = _text(fields, "suppression")
    options = Options(
        confidence=_number(fields, "conf"),
        iou=_number(fields, "iou"),
        suppression=None if kind is None else suppression(kind),
        classes=_classes(fields.get("classes")),
        max_detections=_integer(fields, "max_detections"),
        annotate=annotate,
    )
    return Asked(
        model=_text(fields, "model") or "",
        version=_text(fields, "version") or "",
        options=options,
        timeout=_number(fields, "timeout"),
        lane=_lane(_text(fields, "priority") or "interactive"),
    )


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is None or isinstance(value, str):
        return value
    raise ServeError("invalid", f"'{name}' must be text.")


def _number(fields: Mapping[str, Any], name: str) -> float | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ServeError("invalid", f"'{name}' must be a number.")
    if isinstance(value, str) and not (value.isascii() and 0 < len(value) < 32 and "_" not in value):
        raise ServeError("invalid", f"'{name}' must be a number.")
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise ServeError("invalid", f"'{name}' must be a number.") from None


def _integer(fields: Mapping[str, Any], name: str) -> int | None:
    value = _number(fields, name)
    if value is None:
        return None
    if not abs(value) < 2**53 or value != int(value):
        raise ServeError("invalid", f"'{name}' must be a whole number.")
    return int(value)


def _classes(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, str):
        return class_names(value)
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(value) or None
    raise ServeError("invalid", "'classes' must be a list of names, or comma-separated names.")


def _lane(text: str) -> Lane:
    for known in get_args(Lane):
        if text == known:
            return known  # type: ignore[no-any-return]
    raise ServeError("invalid", "priority must be one of " + ", ".join(get_args(Lane)) + ".")
