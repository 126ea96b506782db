"""How far trackers have a run, as the run's folder and its card tell."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eyas.artifacts import layout
from eyas.artifacts.card import CARD, Card
from eyas.errors import UserError
from eyas.files import read_json
from eyas.training.config_overrides import flatten
from eyas.training.loggers.base import Destination, Status


@dataclass
class TrackedProgress:
    """How far a tracker has what the run has.

    Attributes:
        id, where: its `Destination`, "" before the tracker was reached.
        step: of the last row of `steps.csv` that was sent.
        epoch: of the last row of `metrics.csv` that was sent.
        sheet: epoch of the last contact sheet that was sent.
        files: name of a file that was sent -> its size and its time of change then.
        status: how the run ended, as it was sent; "" while it goes on.
    """

    id: str = ""
    where: str = ""
    step: int = 0
    epoch: int = 0
    sheet: int = 0
    files: dict[str, list[int]] = field(default_factory=dict)
    status: str = ""

    @property
    def place(self) -> Destination | None:
        """Return where the tracker has the run, None if it has not."""
        return Destination(self.id, self.where) if self.id else None


def read_progress(path: Path) -> TrackedProgress | None:
    """Return what a tracker's file says, None if there is none.

    Raises:
        UserError: it says something else.
    """
    if not path.is_file():
        return None
    fields: Any = read_json(path)
    try:
        return TrackedProgress(**fields)
    except TypeError:
        raise UserError(
            f"{path.name} does not record what the tracker has.", where=str(path),
            fix="move it away: the run is sent from the start",
        ) from None  # fmt: skip


def trackers_of(folder: Path) -> dict[str, dict[str, str]]:
    """Return the trackers that have the run, as its card names them: name -> {"id", "where"}."""
    found = {}
    for path in sorted((folder / layout.TRACKERS).glob("*.json")):
        with contextlib.suppress(UserError):  # what is damaged is told where it is to be used
            if (progress := read_progress(path)) is not None and progress.place is not None:
                found[path.stem] = dataclasses.asdict(progress.place)
    return found


def loggers_of(folder: Path) -> tuple[str, ...]:
    """Return the trackers that a run was sent to, or was to be sent to.

    Raises:
        UserError: it is no run's folder, or there are none.
    """
    wanted = flatten(read_json(folder / layout.RECIPE, max_bytes=layout.MAX_BYTES)).get("trainer.logger", ())
    names = tuple(dict.fromkeys([*wanted, *trackers_of(folder)]))
    if not names:
        raise UserError(
            f"{folder} was never sent to a tracker.", fix=f"eyas track {shlex.quote(str(folder))} --logger tensorboard"
        )
    return names


def name_in_card(folder: Path) -> None:
    """Write into the card of a finished run which trackers have it by now, if it has a card."""
    if not (folder / CARD).is_file():
        return
    card = Card.read(folder)
    if card.recipe.get("trackers") != (trackers := trackers_of(folder)):
        dataclasses.replace(card, recipe={**card.recipe, "trackers": trackers}).save(folder)


def status_of(folder: Path) -> Status:
    """Return how the run in a folder ended; one without a card was killed."""
    if not (folder / CARD).is_file() or Card.read(folder).recipe.get("stopped") == "interrupted":
        return "interrupted"
    return "finished"
