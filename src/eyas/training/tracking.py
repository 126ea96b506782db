"""Brings a run to a tracker: whatever the run's folder has and the tracker lacks, while it trains or any time later.

The folder is the only source. Its rows, images and files are written anyway, so a tracker that can't be reached
misses nothing for good, and nothing waits for it in memory. How far a tracker has come stands in `trackers/NAME.json`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import re
import time
from pathlib import Path
from typing import IO

from eyas.artifacts import layout
from eyas.artifacts.card import CARD
from eyas.errors import UserError
from eyas.files import write_json
from eyas.training.loggers import LOGGERS
from eyas.training.loggers.base import Destination, LoggedRow, RunLogger, Status
from eyas.training.run_contents import GrowingTable, Sheet, epoch_row, run_info, sheets_of, stamp_of, table_row
from eyas.training.tracked import TrackedProgress, read_progress

# What together can be used as a run, and what tells of it.
FILES = (
    layout.CONFIG, layout.RECIPE, layout.ENVIRONMENT, layout.METRICS, layout.STEPS, layout.CURVES,
    layout.WEIGHTS, CARD,
)  # fmt: skip
AT_ONCE = 500  # rows between two notes of how far the tracker has come


class Sync:
    """Sends one run to one tracker; only one process at a time can.

    Args:
        name: the tracker's row in `LOGGERS`.
        folder: the run's folder.
        known: where the tracker has the run, as a saved state says, if the folder does not.

    Attributes:
        sent: rows, images and files that were sent so far.
        moved: when something was sent last, as `time.monotonic` counts.
    """

    def __init__(self, name: str, folder: Path, known: Destination | None = None) -> None:
        self.name = name
        self.folder = folder
        self.sent = 0
        self.moved = time.monotonic()
        self._path = folder / layout.TRACKERS / f"{name}.json"
        self._progress = TrackedProgress(known.id, known.where) if known is not None else TrackedProgress()
        self._logger: RunLogger | None = None
        self._lock: IO[str] | None = None
        self._table = GrowingTable(folder / layout.STEPS)

    @property
    def place(self) -> Destination | None:
        """Return where the tracker has the run, None if it was never reached as far as is known."""
        return self._progress.place

    def open(self) -> Destination:
        """Begin the run at the tracker, or go on with it.

        Raises:
            UserError: another process is sending the run.
            Exception: whatever the tracker's client raises where it can't be reached.
        """
        if self._lock is None:
            with contextlib.ExitStack() as held:
                lock = held.enter_context(_locked(self._path.with_suffix(".lock"), self.folder))
                self._progress = read_progress(self._path) or self._progress
                held.pop_all()
                self._lock = lock
        logger = LOGGERS[self.name].open()
        run = run_info(self.folder)
        place, anew = logger.start(run, self._progress.place)
        if anew:
            self._progress = TrackedProgress()
        self._progress.id, self._progress.where, self._progress.status = place.id, place.where, ""
        self._save()
        self._logger = logger
        try:
            logger.describe(run)
        except BaseException:
            self._drop()
            raise
        return place

    def ready(self, status: Status) -> None:
        """Open the run at the tracker unless the tracker has all of it.

        Raises:
            Exception: as `open`.
        """
        if not self.has_all(status):
            self.open()

    def send(self, status: Status | None = None) -> None:
        """Send what the tracker lacks; with a status also the run's files, and end the run there.

        What was sent is noted as it is sent. After an error the next call begins with a new connection.

        Raises:
            Exception: as `open`.
        """
        if self._logger is None:
            if status is not None and self.has_all(status):
                self.close()
                return
            self.open()
        assert self._logger is not None
        try:
            self._send_events(self._logger)
            self._send_curves(self._logger)
            if status is not None:
                self._send_files(self._logger)
                self._logger.finish(status, self._time())
                self._progress.status = status
                self._save()
                self._logger = None
        except BaseException:
            self._drop()
            raise
        if status is not None:
            self.close()

    def has_all(self, status: Status) -> bool:
        """Return whether the tracker has the run as the folder has it, ended with that status."""
        self._progress = read_progress(self._path) or self._progress
        curves = self.folder / layout.CURVES
        stamps = self._stamps() | ({"curves": stamp_of(curves)} if curves.is_file() else {})
        sent = self._progress.files
        if self._progress.status != status or any(sent.get(name) != stamp for name, stamp in stamps.items()):
            return False
        missing = bool(self._events())
        self._table.rewind()
        return not missing

    def close(self) -> None:
        """Let another process send the run."""
        self._drop()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _drop(self) -> None:
        logger, self._logger = self._logger, None
        self._table.rewind()
        if logger is not None:
            with contextlib.suppress(Exception):  # it may be gone
                logger.close()

    def _send_events(self, logger: RunLogger) -> None:
        """Send rows and sheets in the order of their steps."""
        rows: list[tuple[str, LoggedRow]] = []
        for event in self._events():
            if isinstance(event, Sheet):
                self._send_rows(logger, rows)
                logger.image("sheets", event.path, event.step, event.time)
                self._progress.sheet = event.epoch
                self._note(1)
            else:
                rows.append(event)
                if len(rows) == AT_ONCE:
                    self._send_rows(logger, rows)
        self._send_rows(logger, rows)

    def _send_rows(self, logger: RunLogger, rows: list[tuple[str, LoggedRow]]) -> None:
        """Send rows and empty the list."""
        if not rows:
            return
        logger.metrics([row for _, row in rows])
        for table, row in rows:
            if table == layout.STEPS:
                self._progress.step = row.step
            else:
                self._progress.epoch = round(row.values["epoch/epoch"])
        self._note(len(rows))
        rows.clear()

    def _send_curves(self, logger: RunLogger) -> None:
        path = self.folder / layout.CURVES
        if path.is_file() and (stamp := stamp_of(path)) != self._progress.files.get("curves"):
            epochs = self._epochs()
            last = table_row("epoch", epochs[-1], self._started()) if epochs else LoggedRow(0, self._started(), {})
            logger.image("curves", path, max(self._progress.step, last.step), last.time)
            self._progress.files["curves"] = stamp
            self._note(1)

    def _send_files(self, logger: RunLogger) -> None:
        stamps = self._stamps()
        if any(self._progress.files.get(name) != stamp for name, stamp in stamps.items()):
            logger.artifacts([self.folder / name for name in stamps])
            self._progress.files |= stamps
            self._note(len(stamps))

    def _events(self) -> list[tuple[str, LoggedRow] | Sheet]:
        """Return the rows and sheets that the tracker lacks, by step; of one step the row of `steps.csv` comes first.

        The rows are read before the sheets are looked for: a sheet is written before any row of a later step.
        """
        started = self._started()
        steps = [(layout.STEPS, table_row("train", fields, started)) for fields in self._table.new_rows()]
        epochs = [epoch_row(fields, self._table.names, started) for fields in self._epochs()]
        by_epoch = {round(row.values["epoch/epoch"]): row for row in epochs}
        sheets = [
            Sheet(number, path, by_epoch[number].step, by_epoch[number].time)
            for number, path in sheets_of(self.folder)
            if number > self._progress.sheet and number in by_epoch
        ]
        new: list[tuple[int, int, tuple[str, LoggedRow] | Sheet]] = []
        new += [(row[1].step, 0, row) for row in steps if row[1].step > self._progress.step]
        new += [(row.step, 1, (layout.METRICS, row)) for n, row in by_epoch.items() if n > self._progress.epoch]
        new += [(sheet.step, 2, sheet) for sheet in sheets]
        return [event for _, _, event in sorted(new, key=lambda each: each[:2])]

    def _epochs(self) -> list[dict[str, str]]:
        return GrowingTable(self.folder / layout.METRICS).new_rows()

    def _stamps(self) -> dict[str, list[int]]:
        return {name: stamp_of(self.folder / name) for name in FILES if (self.folder / name).is_file()}

    def _started(self) -> float:
        """Return when the run began: its recipe is written then, and never again."""
        return (self.folder / layout.RECIPE).stat().st_mtime

    def _time(self) -> float:
        tables = (self._epochs(), GrowingTable(self.folder / layout.STEPS).new_rows())
        return self._started() + max((float(rows[-1]["seconds"]) for rows in tables if rows), default=0.0)

    def _note(self, count: int) -> None:
        self.sent += count
        self.moved = time.monotonic()
        self._save()

    def _save(self) -> None:
        write_json(self._path, dataclasses.asdict(self._progress))


def reason(error: BaseException) -> str:
    """Return what an error of a tracker says, on one line, without the addresses of objects in it."""
    text = error.problem if isinstance(error, UserError) else str(error) or type(error).__name__
    lines = re.sub(r"<[^<>]* object at 0x[0-9a-f]+>:? ?|\S*\(host='[^']*', port=\d+\):? ?", "", text).split("\n")
    return lines[0][:300]


def _locked(path: Path, folder: Path) -> IO[str]:
    """Return the opened file whose lock this process holds until it is closed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise UserError(
            f"Another process is sending {folder} there.",
            where=str(path),
            fix="wait until it ends; it sends everything",
        ) from None
    return file
