"""JSON from strangers: bounded depth, no duplicate keys, no NaN, and every fault is the sender's."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import msgspec

from eyas.serve.errors import ServeError

_ENCODER = msgspec.json.Encoder()  # a picture of 300 objects takes a tenth of the time that json takes for it
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


def parse(body: bytes | memoryview, *, depth: int = 32) -> Any:
    """Return the value that the JSON text holds.

    Args:
        body: the text, UTF-8.
        depth: deepest nesting that is allowed.

    Raises:
        ServeError: it is not UTF-8 or no JSON, nested too deep, has a key twice, NaN, Infinity, or a number too large.
    """
    data = bytes(body)
    check_depth(data, depth)
    try:
        text = data.decode("utf-8")
        return json.loads(text, object_pairs_hook=_pairs, parse_constant=_constant, parse_float=_float)
    except UnicodeDecodeError:
        raise ServeError("invalid", "The body is not UTF-8.") from None
    except RecursionError:
        raise ServeError("invalid", "The JSON is nested too deep.") from None
    except json.JSONDecodeError as error:
        raise ServeError("invalid", f"The body is no JSON: {error.msg} at character {error.pos}.") from None
    except ValueError:  # an integer of thousands of digits
        raise ServeError("invalid", "A number in the JSON is too large.") from None


def parse_object(body: bytes | memoryview, *, depth: int = 32) -> dict[str, Any]:
    """Return the JSON object in `body`; see `parse`. Anything else than an object is refused."""
    value = parse(body, depth=depth)
    if not isinstance(value, dict):
        raise ServeError("invalid", "The JSON body must be an object.")
    return value


def check_depth(data: bytes, depth: int) -> None:
    """Refuse text that is nested too deep, before a parser sees it."""
    if data.count(b"[") + data.count(b"{") <= depth:
        return
    level = 0
    for match in _TOKENS.finditer(data):
        first = data[match.start()]
        if first in b"[{":
            level += 1
            if level > depth:
                raise ServeError("invalid", f"The JSON is nested deeper than {depth}.")
        elif first in b"]}":
            level -= 1


def dump(value: Any) -> bytes:
    """Return the value as JSON: UTF-8, without spaces. No NaN may be in it: it would become null."""
    return _ENCODER.encode(value)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ServeError("invalid", "The JSON has an object with the same key twice.")
    return found


def _constant(name: str) -> NoReturn:
    raise ServeError("invalid", f"The JSON holds {name}, which is no number.")


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ServeError("invalid", "A number in the JSON is too large.")
    return value
