"""A job's folder, beside its output: what was asked for, the parts, and the results of those that are done.

A part is done when its file stands in `parts/`; the name tells how many images it holds, how many could not be read,
which images these are (a hash of its line in the plan) and what the file's bytes are. Files get their names when they
are whole, and a file that is not what its name says, or is of another plan, is made again: so a job that was ended at
any moment, or whose folder was damaged, goes on with what is left and gives what it would have given.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import shutil
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eyas.errors import UserError
from eyas.files import atomic_path, read_json, write_json
from eyas.predict.parts import Part, from_line, to_line
from eyas.predict.work import Done

_ASKED, _PLAN, _PARTS = "job.json", "plan.jsonl", "parts"
_NAME = re.compile(r"(\d{7,18})-(\d{1,18})-(\d{1,18})-([0-9a-f]{16})-([0-9a-f]{32})\.jsonl", re.ASCII)
_AGAIN = "use the original settings, or start over: --restart"


@dataclass(frozen=True)
class Saved:
    """A part that is done: its number, how many images, how many of them can't be read, and its file's name."""

    index: int
    images: int
    unreadable: int
    file: str = field(default="", compare=False)


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

        A plan that is damaged is made again; what was saved of parts that are the same in it is kept.

        Raises:
            UserError: something else was asked for before, or a source can't be read.
        """
        begun = self.begun()
        if begun:
            self._check_asked(json.loads(json.dumps(asked)))
            if self._plan_is_whole():
                return True
            warnings.warn(f"The job's plan is damaged and is made again: {self.folder / _PLAN}", stacklevel=2)
        (self.folder / _PARTS).mkdir(exist_ok=True)
        write_json(self.folder / _ASKED, asked)
        digest, num = hashlib.sha256(), 0
        with atomic_path(self.folder / _PLAN) as path, path.open("w", encoding="utf-8") as file:
            for part in parts:
                line = to_line(part)
                digest.update(line.encode())
                num += 1
                file.write(line)
            file.write(json.dumps({"parts": num, "sha256": digest.hexdigest()}) + "\n")
        return begun

    def _check_asked(self, asked: dict[str, Any]) -> None:
        """Raise a UserError unless the job was begun with the same settings."""
        try:
            before = read_json(self.folder / _ASKED)
        except UserError as error:
            raise UserError(
                f"The settings of the job can't be read: {error.problem}", where=str(self.folder), fix=_AGAIN
            ) from None
        if not isinstance(before, dict) or asked.keys() != before.keys():
            raise UserError("This output was started by another version of Eyas.", where=str(self.folder), fix=_AGAIN)
        changed = [name for name in asked if asked[name] != before[name]]
        if changed:
            name = changed[0]
            raise UserError(
                f"This output was started with other settings: {name} was {before[name]}, and is {asked[name]}.",
                where=str(self.folder),
                fix=_AGAIN,
            )

    def _plan_is_whole(self) -> bool:
        """Return whether the plan has the parts that its last line says, byte for byte."""
        digest, num, last = hashlib.sha256(), 0, b""
        with (self.folder / _PLAN).open("rb") as file:
            for line in file:
                if last:
                    digest.update(last)
                    num += 1
                last = line
        try:
            return bool(json.loads(last) == {"parts": num, "sha256": digest.hexdigest()})
        except (ValueError, RecursionError):
            return False

    def parts(self) -> Iterator[Part]:
        """Yield all parts, in order."""
        with (self.folder / _PLAN).open(encoding="utf-8") as file:
            line = next(file)
            for following in file:
                yield from_line(line)
                line = following  # the last one is not a part

    def expected(self) -> int:
        """Return how many images there will be, as far as that can be known."""
        return sum(part.count for part in self.parts())

    def saved(self) -> dict[int, Saved]:
        """Return the parts that are done, by number; files that are not whole are removed, and that is told."""
        found = self._found()
        wanted = ((part.index, part) for part in self.parts()) if self.begun() else dict.fromkeys(found).items()
        good: dict[int, Saved] = {}
        for index, part in wanted if found else ():
            whole = (one for one in found.get(index, ()) if self._read(one, part) is not None)
            first = next(whole, None)
            if first is not None:
                good[index] = first
        kept = {one.file for one in good.values()}
        bad = [one.file for each in found.values() for one in each if one.file not in kept]
        for name in bad:
            (self.folder / _PARTS / name).unlink(missing_ok=True)
        if bad:
            what = f"{len(bad)} saved part(s) are damaged, or belong to another plan"
            warnings.warn(f"{what}; they are made again: {self.folder / _PARTS}", stacklevel=2)
        return good

    def _found(self) -> dict[int, list[Saved]]:
        """Return what the names in the folder say that there is."""
        found: dict[int, list[Saved]] = {}
        for path in sorted((self.folder / _PARTS).iterdir()):
            match = _NAME.fullmatch(path.name)
            if match:
                index, images, unreadable = map(int, match.groups()[:3])
                found.setdefault(index, []).append(Saved(index, images, unreadable, path.name))
        return found

    def _read(self, saved: Saved, part: Part | None) -> bytes | None:
        """Return the lines of a part that is done, None unless they are that part's and are as they were written."""
        path = self.folder / _PARTS / saved.file
        if not path.is_file():
            return None
        lines = path.read_bytes()
        which = saved.file.split("-")[3] if part is None else _which(part)
        whole = saved.file == _file(saved.index, which, Done(lines, saved.images, saved.unreadable))
        return lines if whole and lines.count(b"\n") == saved.images else None

    def save(self, part: Part, done: Done) -> Saved:
        """Save a part's results.

        Raises:
            UserError: the disk is full.
        """
        saved = Saved(part.index, done.images, done.unreadable, _file(part.index, _which(part), done))
        with atomic_path(self.folder / _PARTS / saved.file) as path:
            path.write_bytes(done.lines)
        return saved

    def lines(self) -> Iterator[bytes]:
        """Yield each image's line of JSON, in order; all parts must be done.

        Raises:
            UserError: a part was damaged since it was saved.
        """
        found = self._found()
        for part in self.parts():
            whole = (self._read(one, part) for one in found.get(part.index, ()))
            lines = next((each for each in whole if each is not None), None)
            if lines is None:
                raise UserError(
                    f"Part {part.index} was damaged after it was saved.",
                    where=str(self.folder / _PARTS),
                    fix="run the same command again: damaged parts are made again",
                )
            yield from lines.splitlines(keepends=True)

    def remove(self) -> None:
        """Remove the folder; the plan goes first, so that what is left of it is never taken for a job."""
        (self.folder / _PLAN).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def _which(part: Part) -> str:
    """Return the hash of a part's line in the plan: which images it is made of."""
    return hashlib.sha256(to_line(part).encode()).hexdigest()[:16]


def _file(index: int, which: str, done: Done) -> str:
    what = hashlib.sha256(done.lines).hexdigest()[:32]
    return f"{index:07d}-{done.images}-{done.unreadable}-{which}-{what}.jsonl"
