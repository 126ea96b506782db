"""Class names as a dataset has them, made names that everything later can keep, draw and write."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from eyas.checks import check_class_names
from eyas.errors import UserError, shorten
from eyas.text import printable, readable_name

_STAND_IN = "\N{REPLACEMENT CHARACTER}"


def class_names(names: Sequence[str], where: str) -> list[str]:
    """Return the names, readable; that some were not is told.

    Raises:
        UserError: there is no class or too many; a name is empty or much too long, or two are the same, read so or not.
    """
    readable = [readable_name(name) if isinstance(name, str) else name for name in names]
    changed = [
        printable(name, one_line=True)
        for name, now in zip(names, readable, strict=True)
        if now != name and _STAND_IN in now
    ]
    if changed:
        warnings.warn(
            f"Class names contain unpaired surrogates or control characters, which are read as '{_STAND_IN}': "
            f"{shorten(changed)} (in {where}).",
            stacklevel=2,
        )
    check_class_names(readable, where)
    return readable


def read_class_names(path: Path) -> tuple[str, ...]:
    """Return the class names that a text file has, one a line; empty lines at its end are left out.

    Raises:
        UserError: there is no such file, it is no text, or has no name.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}.", expected="a text file of class names, one per line")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path.name} is not UTF-8 text.", where=str(path)) from None
    names = tuple(line.strip() for line in text.rstrip().splitlines())
    if not names or not all(names):
        raise UserError(f"A line of {path.name} has no name.", where=str(path), expected="one class name per line")
    return names
