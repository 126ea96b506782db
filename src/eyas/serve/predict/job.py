"""A job's folder, beside its output: what was asked for, the parts, and the results of those that are done.

A part is done when its file stands in `parts/`; its name tells how many pictures it holds, and how many could not be
read. Files get their names when they are whole, so a job that was ended at any moment goes on with the other parts.
"""

from __future__ import annotations

import fcntl
import json
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyas.errors import UserError
from eyas.files import atomic_path, read_json, write_json
from eyas.serve.predict.parts import Part, from_line, to_line
from eyas.serve.predict.work import Done

_ASKED, _PLAN, _PARTS = "job.json", "plan.jsonl", "parts"
_NAME = re.compile(r"(\d+)-(\d+)-(\d+)\.jsonl")


@dataclass(frozen=True)
class Saved:
    """A part that is done: its number, how many pictures, how many of them can't be read."""

    index: int
    pictures: int
    unreadable: int

    @property
    def file(self) -> str:
        """Return the name of its file."""
        return f"{self.index:07d}-{self.pictures}-{self.unreadable}.jsonl"


class Job:
    """The folder of one job.

    Args:
        out: the job's output.
    """

    def __init__(self, out: Path) -> None:
        self.folder = out.with_name(out.name + ".job")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from working on the same output.

        Raises:
            UserError: one does already.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError("Another process is writing this output.", where=str(self.folder)) from None
            yield

    def begun(self) -> bool:
        """Return whether a job was begun and has not come to its end."""
        return (self.folder / _PLAN).is_file()

    def begin(self, asked: dict[str, Any], parts: Iterable[Part]) -> bool:
        """Write down what was asked for and the parts, unless that was done before; return whether it was.

        Raises:
            UserError: something else was asked for before, or a source can't be read.
        """
        if self.begun():
            before = read_json(self.folder / _ASKED)
            same = json.loads(json.dumps(asked))
            changed = [name for name in same if same[name] != before.get(name)]
            if changed:
                name = changed[0]
                raise UserError(
                    f"This output was begun with other settings: {name} was {before.get(name)}, and is {same[name]}.",
                    where=str(self.folder),
                    fix="use the settings it was begun with, or begin again: --restart",
                )
            return True
        (self.folder / _PARTS).mkdir(exist_ok=True)
        write_json(self.folder / _ASKED, asked)
        with atomic_path(self.folder / _PLAN) as path, path.open("w", encoding="utf-8") as file:
            file.writelines(to_line(part) for part in parts)
        return False

    def parts(self) -> Iterator[Part]:
        """Yield all parts, in order."""
        with (self.folder / _PLAN).open(encoding="utf-8") as file:
            yield from map(from_line, file)

    def expected(self) -> int:
        """Return how many pictures there will be, as far as that can be known."""
        return sum(part.count for part in self.parts())

    def saved(self) -> dict[int, Saved]:
        """Return the parts that are done, by number."""
        matches = (_NAME.fullmatch(path.name) for path in (self.folder / _PARTS).iterdir())
        found = (Saved(*map(int, match.groups())) for match in matches if match)
        return {saved.index: saved for saved in found}

    def save(self, part: Part, done: Done) -> Saved:
        """Save a part's results.

        Raises:
            UserError: the disk is full.
        """
        saved = Saved(part.index, done.pictures, done.unreadable)
        with atomic_path(self.folder / _PARTS / saved.file) as path:
            path.write_bytes(done.lines)
        return saved

    def lines(self) -> Iterator[bytes]:
        """Yield each picture's line of JSON, in order; all parts must be done."""
        saved = self.saved()
        for part in self.parts():
            with (self.folder / _PARTS / saved[part.index].file).open("rb") as file:
                yield from file

    def remove(self) -> None:
        """Remove the folder; the plan goes first, so that what is left of it is never taken for a job."""
        (self.folder / _PLAN).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
