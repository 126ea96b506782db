"""What a name, a number and a list of class names in an artefact may be: one rule for all that is read or made."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from eyas.errors import UserError, shorten

MAX_CLASSES = 20_000
MAX_NAME = 500  # characters
_NEVER = frozenset({"Cc", "Cs", "Zl", "Zp"})  # controls, halves of a character, ends of lines and paragraphs


def check_class_names(classes: Sequence[object], where: str) -> None:
    """Refuse class names that nothing later can keep, draw or tell apart.

    Raises:
        UserError: there is no class or more than `MAX_CLASSES`; a name is no text, empty, stands twice, is longer than
            `MAX_NAME` characters, or holds control characters or halves of a character.
    """
    if not classes:
        raise UserError("There are no classes.", where=where, expected="at least one class name")
    if len(classes) > MAX_CLASSES:
        raise UserError(f"There are {len(classes)} classes.", where=where, expected=f"at most {MAX_CLASSES}")
    texts = [name for name in classes if isinstance(name, str)]
    if len(texts) < len(classes):
        odd = next(name for name in classes if not isinstance(name, str))
        raise UserError(f"A class name is not text: {shown(odd)}.", where=where, expected="a quoted name")
    for name in texts:
        check_text("A class name", name, where)
    twice = [name for name, count in Counter(texts).items() if count > 1]
    if twice:
        raise UserError(f"Duplicate class names: {shorten(twice)}.", where=where, expected="each name once")


def check_text(what: str, text: object, where: str, most: int = MAX_NAME) -> str:
    """Return a name that can be written, drawn and printed anywhere.

    Args:
        what: what it is, the beginning of the error.
        text: the name.
        where: where it stands, for the error.
        most: characters.

    Raises:
        UserError: it is no such name.
    """
    if not isinstance(text, str):
        raise UserError(f"{what} is not text: {shown(text)}.", where=where)
    if not text.strip():
        raise UserError(f"{what} is empty.", where=where, expected="a name")
    if len(text) > most:
        raise UserError(
            f"{what} has {len(text)} characters: {shown(text)}.", where=where, expected=f"at most {most} characters"
        )
    if any(unicodedata.category(letter) in _NEVER for letter in text):
        raise UserError(
            f"{what} contains characters that can't be displayed: {shown(text)}.",
            where=where,
            expected="text without control characters, line breaks and unpaired surrogates",
        )
    return text


def check_whole(name: str, value: object, least: int, most: int, where: str = "") -> None:
    """Refuse what is no whole number from `least` to `most`; True and False are none.

    Raises:
        UserError: it is out of range, or of another type.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= most:
        raise UserError(
            f"{name} is {shown(value)}.", where=where or name, expected=f"a whole number from {least} to {most}"
        )


def check_number(name: str, value: object, least: float, most: float, where: str = "") -> None:
    """Refuse what is no finite number from `least` to `most`; True and False are none.

    Raises:
        UserError: it is out of range, or of another type.
    """
    good = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not good or not least <= value <= most or not math.isfinite(value):  # type: ignore[operator, arg-type]
        raise UserError(
            f"{name} is {shown(value)}.", where=where or name, expected=f"a number from {least:g} to {most:g}"
        )


def check_file_name(name: object) -> None:
    """Raise a ValueError unless `name` is a plain relative path that can't leave its folder on any system."""
    if not isinstance(name, str):
        raise ValueError(f"a file name is {shown(name)}")
    path = PurePosixPath(name)
    odd = not name or len(name) > 1000 or any(letter in name for letter in "\\:\0")
    if odd or path.is_absolute() or ".." in path.parts or str(path) != name or name == ".":
        raise ValueError(f"the file name {shown(name)} may point outside the folder")


def shown(value: object, most: int = 60) -> str:
    """Return a value of unknown kind as text for an error: escaped, and short however long it is."""
    if isinstance(value, int) and value.bit_length() > 200:
        return "a number of more than 60 digits"  # whose digits Python may refuse to make
    if isinstance(value, str):
        text = ascii(value[: most + 1]) if not value[: most + 1].isprintable() else repr(value[: most + 1])
    elif isinstance(value, list | tuple | dict):
        text = f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)}"
    else:
        text = repr(value)
    return text if len(text) <= most + 2 else text[:most] + "…"
