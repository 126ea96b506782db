"""How requests are shared out, as it is written on the command line or in a file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from eyas.errors import UserError, suggest
from eyas.serve.engine.routing import Split

_REFERENCE = re.compile(r"@[a-z][\w-]{0,63}|\d{1,18}", re.ASCII)
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", re.ASCII)
_FIELDS = ("weights", "sticky", "header", "shadows")


def read_routes(path: Path) -> dict[str, Split]:
    """Return the splits of a file: {"MODEL": {"weights": {"@champion": 9, ...}, "sticky", "header", "shadows"}}.

    Raises:
        UserError: the file can't be read, or says something that makes no sense.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"The routes file can't be read: {error}.", where=str(path)) from None
    if not isinstance(document, dict) or not all(isinstance(each, dict) for each in document.values()):
        raise UserError("The routes file is not an object of objects.", where=str(path), expected='{"MODEL": {...}}')
    return {name: _split(fields, f"{path}: {name}") for name, fields in document.items()}


def splits_of(weights: Sequence[str], shadows: Sequence[str], sticky: str, header: str) -> dict[str, Split]:
    """Return the splits that the command line asks for; "" stands for every model.

    Args:
        weights: each "[MODEL:]@champion=9,@challenger=1".
        shadows: each "[MODEL:]@challenger".
        sticky: the header that one client always sends alike, "" for none.
        header: the header that chooses a version, "" for none.

    Raises:
        UserError: one of them makes no sense.
    """
    found: dict[str, Split] = {}
    for text in weights:
        model, _, rest = text.rpartition(":")
        found[model] = replace(found.get(model, Split()), weights=_weights_of(rest, text))
    for text in shadows:
        model, _, rest = text.rpartition(":")
        before = found.get(model, Split())
        found[model] = replace(before, shadows=(*before.shadows, _reference(rest, text)))
    if (sticky or header) and not found:
        found[""] = Split()
    sticky, header = _header(sticky, "--sticky"), _header(header, "--version-header")
    return {model: replace(split, sticky=sticky, header=header) for model, split in found.items()}


def _weights_of(text: str, where: str) -> dict[str, float]:
    """Return what "@champion=9,@challenger=1" says."""
    found: dict[str, float] = {}
    for part in text.split(","):
        reference, _, number = part.strip().partition("=")
        try:
            found[_reference(reference, where)] = float(number)
        except ValueError:
            raise UserError(
                f"'{part}' is not a valid share.", expected="@champion=9,@challenger=1", where=where
            ) from None
    return _checked(found, where)


def _split(fields: Mapping[str, Any], where: str) -> Split:
    """Return one model's split, from JSON."""
    for name in fields:
        if name not in _FIELDS:
            raise UserError(
                f"There is no setting '{name}'{suggest(name, _FIELDS)}.", where=where, expected=str(_FIELDS)
            )
    weights, shadows = fields.get("weights", {}), fields.get("shadows", [])
    numbers = isinstance(weights, dict) and all(type(each) in (int, float) for each in weights.values())
    if not numbers or not isinstance(shadows, list):
        raise UserError("The weights must be an object of numbers, the shadows a list.", where=where)
    return Split(
        weights=_checked({_reference(each, where): float(weight) for each, weight in weights.items()}, where),
        sticky=_header(fields.get("sticky", ""), where),
        header=_header(fields.get("header", ""), where),
        shadows=tuple(_reference(each, where) for each in shadows),
    )


def _checked(weights: dict[str, float], where: str) -> dict[str, float]:
    """Return the weights if they can be shared out by."""
    if not all(0 <= each < math.inf for each in weights.values()) or (weights and not sum(weights.values()) > 0):
        raise UserError("The weights must be numbers, at least 0 and not all 0.", where=where)
    return weights


def _reference(text: Any, where: str) -> str:
    """Return a version or an "@alias"."""
    if not isinstance(text, str) or not _REFERENCE.fullmatch(text):
        raise UserError(f"'{text}' is not a version.", expected="@alias, or a number", where=where)
    return text


def _header(text: Any, where: str) -> str:
    """Return a header's name in lower case, "" for none."""
    if not isinstance(text, str) or (text and not _HEADER.fullmatch(text)):
        raise UserError(f"'{text}' is not a valid header name.", where=where)
    return text.lower()
