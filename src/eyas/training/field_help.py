"""What each field of a recipe does, in the words of its class's docstring, for `eyas train --help`."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

_ENTRY = re.compile(r"^    (\w[\w, ]*): ", re.MULTILINE)  # "a, b: text", below "Attributes:"


class FieldHelp(NamedTuple):
    """A field of a recipe: its dotted name, what it does, and its default."""

    name: str
    text: str
    default: Any


class Section(NamedTuple):
    """A part of a recipe: its name, its class's first line, and its fields."""

    name: str
    summary: str
    fields: tuple[FieldHelp, ...]


def sections(recipe: Any) -> Iterator[Section]:
    """Yield the parts of a recipe, each with all fields below it; the recipe's own plain fields come first."""
    parts = {entry.name: getattr(recipe, entry.name) for entry in dataclasses.fields(recipe)}
    plain = [each for each in _fields(recipe, "") if each.name in parts]
    yield Section("", _summary(recipe), tuple(plain))
    for name, part in parts.items():
        if dataclasses.is_dataclass(part):
            yield Section(name, _summary(part), tuple(_fields(part, f"{name}.")))


def attributes(cls: type) -> dict[str, str]:
    """Return attribute -> what the class's docstring says of it, in one line."""
    _, _, listed = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")
    pieces = _ENTRY.split(listed.partition("\n\n")[0])[1:]
    return {
        name.strip(): " ".join(text.split())
        for names, text in zip(pieces[::2], pieces[1::2], strict=True)
        for name in names.split(",")
    }


def _fields(value: Any, prefix: str) -> Iterator[FieldHelp]:
    texts = attributes(type(value))
    for entry in dataclasses.fields(value):
        inner = getattr(value, entry.name)
        if not dataclasses.is_dataclass(inner):
            yield FieldHelp(f"{prefix}{entry.name}", texts[entry.name], inner)
        elif prefix:
            yield from _fields(inner, f"{prefix}{entry.name}.")


def _summary(value: Any) -> str:
    return inspect.cleandoc(type(value).__doc__ or "").partition("\n")[0]
