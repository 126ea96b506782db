"""Values that no artefact should hold, tried in every field of one."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from typing import Any

VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    -1,
    0,
    1,
    1.5,
    -1.5,
    10**6,
    10**9,
    2**63,
    10**30,
    10**400,
    1e308,
    math.nan,
    math.inf,
    -math.inf,
    "",
    " ",
    "x",
    "a" * 100_000,
    "\x1b[31mred",
    "line\nend",
    "\ud800",
    "a\0b",
    "../../etc/passwd",
    "/dev/zero",
    "640",
    [],
    [[]],
    [None, None],
    ["a", "a"],
    ["a"] * 3,
    [1, 2],
    [0, 0],
    [10**9, 1],
    {},
    {"a": 1},
    {"__class__": "x"},
)


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of each value inside a document, itself left out; of a list only the first entry's."""
    children: Any = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list):
        children = list(enumerate(value))[:1]
    for key, child in children:
        yield (*path, key)
        yield from places(child, (*path, key))


def replaced(document: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """Return a copy of the document with another value at a path."""
    changed = copy.deepcopy(document)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return changed


def variants(document: Any) -> Iterator[tuple[str, str]]:
    """Yield (what was done, the JSON text) for every field with every value, and without, doubled and renamed."""
    for path in places(document):
        for value in VALUES:
            yield f"{path} = {ascii(value)[:40]}", json.dumps(replaced(document, path, value))
        without = copy.deepcopy(document)
        inner = without
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]
        yield f"without {path}", json.dumps(without)
        if isinstance(path[-1], str):
            yield f"{path} renamed", json.dumps({**without, "unknown_field": 1})
    text = json.dumps(document)
    for name in document:
        yield f"{name} twice", text[:-1] + f", {json.dumps(name)}: {json.dumps(document[name])}}}"
    yield "cut off", text[: len(text) // 2]
    yield "empty", ""
    yield "another document", "[]"
    yield "deep", '{"format": ' + "[" * 100_000 + "]" * 100_000 + "}"
