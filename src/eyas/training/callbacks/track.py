"""Brings a run to its trackers while it trains, beside it: training waits for none of them, and fails with none."""

from __future__ import annotations

import dataclasses
import shlex
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import lightning as L

from eyas.training.callbacks.checkpoint import StopRunError
from eyas.training.loggers.base import Destination, Status
from eyas.training.tracked import trackers_of
from eyas.training.tracking import Sync, reason

EVERY = 5.0  # seconds between two looks into the run's folder
LONGEST_WAIT = 300.0  # seconds between two tries to reach a tracker that is gone
AT_START = 30.0  # seconds that the card waits for a tracker's id, where a run ends while it is still being reached
AT_END = 60.0  # seconds without anything sent, after which what is left is kept for later
WHEN_ASKED_TO_END = 8.0  # seconds in all, where a signal came: who sent it may be about to send the next


class Track(L.Callback):
    """Sends the run to each tracker, in a thread of its own; only the first process does.

    Whoever runs the training calls `places` for the card, and `finish` when the card is written. A run that ends by an
    error has none, and is ended at the trackers at once.

    Args:
        folder: the run's folder.
        names: rows of `LOGGERS`, checked already.
        tell: prints a line; called from several threads.
        every: seconds between two looks into the folder.
    """

    def __init__(self, folder: Path, names: Iterable[str], tell: Callable[[str], None], every: float = EVERY) -> None:
        self.folder = folder
        self.names = tuple(names)
        self.tell = tell
        self.every = every
        self._saved: dict[str, Destination] = {}
        self._threads: list[_TrackerThread] = []
        self._ending: float | None = None  # since when the run's end waits for the trackers

    def state_dict(self) -> dict[str, Any]:
        """Return where the trackers have the run."""
        places = {thread.sync.name: thread.sync.place for thread in self._threads}
        return {"places": {name: dataclasses.asdict(place) for name, place in places.items() if place is not None}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the trackers' runs."""
        self._saved = {name: Destination(**fields) for name, fields in state_dict["places"].items()}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start sending: by now the run's tables are what they were at the state that a resumed run begins with."""
        if trainer.is_global_zero:
            syncs = [Sync(name, self.folder, self._saved.get(name)) for name in self.names]
            self._threads = [_TrackerThread(sync, self.tell, self.every) for sync in syncs]

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Have the epoch's row sent at once."""
        for thread in self._threads:
            thread.wake()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """End the run at the trackers if it has failed; one that was interrupted goes on to its card."""
        if isinstance(exception, SystemExit | KeyboardInterrupt):
            self.finish("interrupted")
        elif not isinstance(exception, StopRunError):
            self.finish("failed")

    def places(self, status: Status) -> dict[str, dict[str, str]]:
        """Return where the trackers have the run, for its card; waits a while for those that are being reached."""
        seconds = AT_START if status == "finished" else WHEN_ASKED_TO_END
        self._ending = time.monotonic()
        deadline = self._ending + seconds
        if silent := [thread.sync.name for thread in self._threads if not thread.tried.is_set()]:
            self.tell(f"waiting for {', '.join(silent)} to accept the run, at most {seconds:.0f} s")
        for thread in self._threads:
            thread.tried.wait(max(0.0, deadline - time.monotonic()))
        return trackers_of(self.folder)

    def finish(self, status: Status, asked: Callable[[], bool] = lambda: False) -> None:
        """Send what is left and end the run at the trackers; tell of those that did not take it all in time.

        Args:
            status: how the run ended.
            asked: whether a signal has come by now: then what is left is waited for less long.
        """
        threads, self._threads = self._threads, []
        hurried = status != "finished"
        for thread in threads:
            thread.finish(status)
        told = time.monotonic()
        begun = told if self._ending is None else self._ending
        while left := [thread for thread in threads if thread.is_worth_waiting(begun, hurried or asked())]:
            left[0].wait(0.1)
            if time.monotonic() - told > AT_END / 6:
                told = time.monotonic()
                names = ", ".join(f"{thread.sync.name} ({thread.sync.sent} sent)" for thread in left)
                self.tell(f"sending the rest to {names}; Ctrl-C stops waiting")
        for thread in threads:
            if why := thread.give_up():
                self.tell(
                    f"{thread.sync.name} is missing data ({why}); nothing is lost, send it with:  eyas track "
                    f"{shlex.quote(str(self.folder))}"
                )


class _TrackerThread:
    """Looks into the run's folder again and again and sends what is new."""

    def __init__(self, sync: Sync, tell: Callable[[str], None], every: float) -> None:
        self.sync = sync
        self.tried = threading.Event()  # once: then the id is known, or the tracker can't be reached
        self._tell = tell
        self._every = every
        self._wake = threading.Event()
        self._status: Status | None = None
        self._failure = ""
        # It ends with the process: one that hangs in a call to a server must not keep it.
        self._thread = threading.Thread(target=self._work, name=f"eyas-{sync.name}", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Look now, unless the tracker is gone and waited for."""
        if not self._failure:
            self._wake.set()

    def finish(self, status: Status) -> None:
        """Send what is left, and end the run."""
        self._status = status
        self._wake.set()

    def wait(self, seconds: float) -> None:
        """Wait so long for the end."""
        self._thread.join(seconds)

    def is_worth_waiting(self, begun: float, hurried: bool) -> bool:
        """Return whether to wait on, since `begun`, for the tracker to take what it lacks at the end."""
        now = time.monotonic()
        patient = self.tried.is_set() and not hurried
        over = now - max(begun, self.sync.moved) > AT_END if patient else now - begun > WHEN_ASKED_TO_END
        return self._thread.is_alive() and not over

    def give_up(self) -> str:
        """Say no more, and return why the tracker has not got everything, "" if it has."""
        self._tell = lambda _: None
        return self._failure or ("it does not respond" if self._thread.is_alive() else "")

    def _work(self) -> None:
        wait = 0.0
        while True:
            self._wake.wait(wait)
            self._wake.clear()
            status = self._status
            try:
                self._send(status)
                wait = self._every
            except Exception as error:  # of somebody's client: anything, and nothing that training would end for
                self._fail(reason(error))
                wait = min(max(2 * wait, self._every), LONGEST_WAIT)
            self.tried.set()
            if status is not None:
                self.sync.close()
                return

    def _send(self, status: Status | None) -> None:
        """Send what is new; say where the run is when that is known, and when a tracker is back."""
        if not self.tried.is_set():
            place = self.sync.open()
            self._tell(f"{self.sync.name}: run {place.id} at {place.where}")
            self.tried.set()
        self.sync.send(status)
        if self._failure:
            self._failure = ""
            self._tell(f"{self.sync.name} responds again and is up to date")

    def _fail(self, why: str) -> None:
        """Say once that the tracker is gone."""
        known, self._failure = self._failure, why
        if not known and self._status is None:
            self._tell(
                f"{self.sync.name} does not accept the run ({why}); training continues, and the missing data is sent "
                "later"
            )
