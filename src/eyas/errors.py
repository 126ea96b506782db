"""The one error that Eyas raises for anything a user can fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from eyas.text import printable

Row = TypeVar("Row")


class UserError(Exception):
    """Invalid input by the user; says what is wrong, what was expected, where, and how to fix it.

    Args:
        problem: what was given and why it can't be used, one sentence.
        expected: what would have been fine.
        where: the file, field or argument it concerns.
        fix: what to do about it, as an instruction or a command.
    """

    def __init__(self, problem: str, *, expected: str = "", where: str = "", fix: str = "") -> None:
        self.problem = problem
        self.expected = expected
        self.where = where
        self.fix = fix
        super().__init__(self.__str__())

    def __str__(self) -> str:
        """Return the parts that are set, a line each."""
        lines = [self.problem]
        lines += [f"  where:    {printable(self.where, one_line=True)}"] if self.where else []
        lines += [f"  expected: {self.expected}"] if self.expected else []
        lines += [f"  fix:      {self.fix}"] if self.fix else []
        return "\n".join(lines)


def suggest(given: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the known name nearest to the given one, or "" when none is near."""
    if len(given) > 200:  # no name is as long, and to compare it takes a while
        return ""
    near = difflib.get_close_matches(given, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{near[0]}'?)" if near else ""


def row_of(table: Mapping[str, Row], name: str, problem: str, where: str = "") -> Row:
    """Return the row of a table that a user named.

    Args:
        table: rows by name.
        name: what was given.
        problem: what to say where there is none, up to the name: "There is no recipe".
        where: the option or field that it was given by.

    Raises:
        UserError: there is none of that name; the nearest is suggested.
    """
    if name not in table:
        raise UserError(
            f"{problem} '{name}'{suggest(name, table)}.", expected="one of " + ", ".join(table), where=where
        )
    return table[name]


def shorten(names: Sequence[object], limit: int = 5) -> str:
    """Return the first names joined by commas, and how many more there are."""
    rest = len(names) - limit
    return ", ".join(str(name) for name in names[:limit]) + (f" and {rest} more" if rest > 0 else "")


def missing_extra(package: str, extra: str) -> UserError:
    """Return the error for a package that only an optional extra installs."""
    return UserError(
        f"This needs the package '{package}', which is not installed.",
        fix=f'pip install "eyas[{extra}]"',
    )
