"""What a client may ask of a detection, and what a worker makes of it: each field is checked, and none ignored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from eyas.artifacts.manifest import Manifest
from eyas.errors import UserError, shorten, suggest
from eyas.serve.api import Lane, Options
from eyas.serve.errors import ServeError, quoted
from eyas.types import Suppression, Thresholds

FIELDS = ("model", "version", "conf", "iou", "suppression", "classes", "max_detections", "timeout", "priority")


@dataclass(frozen=True)
class Asked:
    """What a client of REST or of a stream asks.

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


def from_query(pairs: Iterable[tuple[str, str]], annotate: bool = False) -> Asked:
    """Return what a query string asks."""
    if not pairs and not annotate:
        return PLAIN
    return asked(once(pairs), annotate)


def once(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return the fields by name; one that is given twice is refused."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ServeError("invalid", f"{quoted(name)} is given twice.")
        found[name] = value
    return found


def asked(fields: Mapping[str, Any], annotate: bool = False) -> Asked:
    """Return what the fields ask; texts (of a query or a form) and JSON's own types both do.

    Raises:
        ServeError: a field is unknown or has no sensible value.
    """
    for name, value in fields.items():
        if name not in FIELDS:
            near = suggest(name[:64], FIELDS) or f"; the fields are {', '.join(FIELDS)}"
            raise ServeError("invalid", f"Unknown field {quoted(name)}{near}.")
        if value is None:
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
        lane=_one_of(_text(fields, "priority") or "interactive", Lane, "priority"),
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
    plain = not isinstance(value, str) or (value.isascii() and 0 < len(value) < 32 and "_" not in value)
    try:
        if plain and isinstance(value, str | int | float) and not isinstance(value, bool):
            return float(value)
    except (ValueError, OverflowError):
        pass
    raise ServeError("invalid", f"'{name}' must be a number.")


def _integer(fields: Mapping[str, Any], name: str) -> int | None:
    value = _number(fields, name)
    if value is not None and (not abs(value) < 2**53 or value != int(value)):
        raise ServeError("invalid", f"'{name}' must be a whole number.")
    return None if value is None else int(value)


def _classes(value: Any) -> tuple[str, ...] | None:
    if value is None or isinstance(value, str):
        return class_names(value or "")
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(value) or None
    raise ServeError("invalid", "'classes' must be a list of names, or comma-separated names.")


def class_names(text: str) -> tuple[str, ...] | None:
    """Return the names in a comma-separated list; None for an empty one, which means all classes."""
    return tuple(name.strip() for name in text.split(",") if name.strip()) or None


def suppression(text: str) -> Suppression:
    """Return the named suppression."""
    found: Suppression = _one_of(text, Suppression, "suppression")
    return found


def _one_of(text: str, kind: Any, name: str) -> Any:
    if text not in get_args(kind):
        raise ServeError("invalid", f"{name} is one of " + ", ".join(get_args(kind)) + ".")
    return text


def thresholds_of(options: Options, manifest: Manifest) -> Thresholds:
    """Return the model's thresholds with those that were asked for in their place.

    Raises:
        ServeError: one is out of range.
    """
    names = ("confidence", "iou", "suppression", "max_detections")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    try:
        return replace(manifest.thresholds, **given) if given else manifest.thresholds
    except UserError as error:
        wanted = f" Expected: {error.expected}." if error.expected else ""
        raise ServeError("invalid", error.problem + wanted) from None


def labels_of(options: Options, manifest: Manifest) -> tuple[int, ...] | None:
    """Return the labels of the classes that were asked for, sorted; None for all.

    Raises:
        ServeError: the model has no such class.
    """
    if options.classes is None:
        return None
    for name in options.classes:
        if name not in manifest.classes:
            some = shorten([each[:32] for each in manifest.classes], 10)  # a status of gRPC travels in a header
            near = suggest(name[:100], manifest.classes) or f"; it has {some}"
            raise ServeError("invalid", f"The model has no class '{name[:100]}'{near}.")
    return tuple(label for label, name in enumerate(manifest.classes) if name in options.classes)
