"""Walking a JSON document's outermost lists, one element at a time, so that what was read needs not be held."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

_NEXT = re.compile(r"[ \t\n\r]*").match
_AFTER = re.compile(r"[ \t\n\r]*([,\]}])[ \t\n\r]*").match


class Twice(dict[str, Any]):
    """An object in which a key stands more than once; the last value counts, as for every reader of JSON."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else Twice(fields)


_scan = json.JSONDecoder(object_pairs_hook=_object).raw_decode


def walk(text: str, take: Mapping[str, Callable[[Any], None]]) -> list[tuple[str, type]]:
    """Hand each element of the lists that `take` names to its function, in order.

    Only direct children of lists that are themselves values of the outermost object count: whatever lies deeper, or
    in other lists, is read past and forgotten.

    Args:
        text: the document; its outermost value must be an object.
        take: key of the outermost object -> what is done with an element of its list.

    Returns:
        (key, type of its value) of the outermost object, in order; a key that stands twice is there twice.

    Raises:
        json.JSONDecodeError: a syntax error.
        RecursionError: an element is nested too deep.
    """
    found: list[tuple[str, type]] = []
    at = _start(text, 0, "{")
    if text[at : at + 1] == "}":
        return _end(text, at + 1, found)
    while True:
        key, at = _scan(text, at)
        if not isinstance(key, str):
            raise json.JSONDecodeError("Expecting property name enclosed in double quotes", text, at)
        at = _start(text, at, ":")
        if text[at : at + 1] == "[":
            found.append((key, list))
            at = _elements(text, at, take.get(key))
        else:
            value, at = _scan(text, at)
            found.append((key, type(value)))
        mark, at = _mark(text, at, "}")
        if mark == "}":
            return _end(text, at, found)


def _elements(text: str, at: int, take: Callable[[Any], None] | None) -> int:
    """Read the list that begins at `at`, element by element; return where it ends."""
    at = _start(text, at, "[")
    if text[at : at + 1] == "]":
        return at + 1
    while True:
        value, at = _scan(text, at)
        if take is not None:
            take(value)
        mark, at = _mark(text, at, "]")
        if mark == "]":
            return at


def _start(text: str, at: int, mark: str) -> int:
    """Return where the text goes on after the mark and the blanks around it."""
    blank = _NEXT(text, at)
    at = blank.end() if blank else at
    if text[at : at + 1] != mark:
        raise json.JSONDecodeError(f"Expecting '{mark}'", text, at)
    blank = _NEXT(text, at + 1)
    return blank.end() if blank else at + 1


def _mark(text: str, at: int, closing: str) -> tuple[str, int]:
    match = _AFTER(text, at)
    if match is None or match[1] not in ("," + closing):
        raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
    return match[1], match.end()


def _end(text: str, at: int, found: list[tuple[str, type]]) -> list[tuple[str, type]]:
    if text[at:].strip(" \t\n\r"):
        raise json.JSONDecodeError("Extra data", text, at)
    return found
