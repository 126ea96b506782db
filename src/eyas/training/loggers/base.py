"""What a logger is told of a run, and what it must be able to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

Status = Literal["finished", "interrupted", "failed"]


@dataclass(frozen=True)
class RunInfo:
    """What a run is, before its first step.

    Attributes:
        folder: the run's folder.
        started: when it was begun, Unix seconds.
        recipe: its settings: dotted name -> value, ready for JSON.
        facts: environment and origin: "env.versions.torch", "data.train.sha256", ... -> text.
        parents: what it was made from, as in its card: {"kind", "path", "sha256"}, datasets also "split".
    """

    folder: Path
    started: float
    recipe: Mapping[str, Any]
    facts: Mapping[str, str]
    parents: Sequence[Mapping[str, str]]

    @property
    def name(self) -> str:
        """Return the name that the tracker shows."""
        return self.folder.resolve().name


@dataclass(frozen=True)
class Destination:
    """Where a tracker has a run.

    Attributes:
        id: the tracker's id of the run.
        where: the server, database or folder, for a person.
    """

    id: str
    where: str


@dataclass(frozen=True)
class LoggedRow:
    """Numbers of one moment.

    Attributes:
        step: optimizer steps so far.
        time: Unix seconds.
        values: name -> number: "train/loss", "epoch/loss", "val/AP", ...
    """

    step: int
    time: float
    values: Mapping[str, float]


class RunLogger(Protocol):
    """Writes one run to one tracker. All calls come from one thread, after `start`; each may raise and may hang.

    Nothing is given twice but what may have got lost when a process was killed; a call that raised is made again, on a
    new logger, when the tracker may be back.
    """

    def start(self, run: RunInfo, known: Destination | None) -> tuple[Destination, bool]:
        """Begin the run at the tracker, or go on with it.

        Args:
            run: what it is.
            known: where the tracker had it before, None if it never had it.

        Returns:
            where it is now, and whether it is new there, so that everything is to be sent.
        """
        ...

    def describe(self, run: RunInfo) -> None:
        """Write the recipe and the facts, after each start: a resumed run may be on another machine."""
        ...

    def metrics(self, rows: Sequence[LoggedRow]) -> None:
        """Write numbers, in the order of their steps."""
        ...

    def image(self, name: str, path: Path, step: int, time: float) -> None:
        """Show an image file as the state of `name` ("curves", "sheets") at a step."""
        ...

    def artifacts(self, paths: Sequence[Path]) -> None:
        """Keep files of the run's folder: together they can be used as a run."""
        ...

    def finish(self, status: Status, time: float) -> None:
        """Say how the run ended and when, and return when everything has arrived."""
        ...

    def close(self) -> None:
        """Let go of the tracker without ending the run, after an error too; another logger may go on with it."""
        ...
